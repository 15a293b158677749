"""Score, export, correct, evaluate, train and score again, with the starter pack and Label Studio's or CVAT's files."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

import skinbatch
from skinbatch.demo import write_demo_archive
from skinbatch.evaluate.evaluation import evaluate
from skinbatch.evaluate.request import EvaluationRequest
from skinbatch.export.export import ExportRequest, export
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.reading import destination_store
from skinbatch.selection.choose import Selection
from skinbatch.train.fitting.progress import SilentProgress
from skinbatch.train.session import train
from tests.faces import rows
from tests.unit.train.detection.spotted import RECIPE

pytestmark = pytest.mark.slow

LOOSE = "image_id not like '%.tar/%' and image_id not like '%.zip/%' and face"


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Score the demo's photos with the starter pack."""
    root = tmp_path_factory.mktemp("relabelling")
    write_demo_archive(root / "photos", photos=24)
    report = skinbatch.score(root / "photos", root / "dest", engine="local", max_failures=1.0)
    assert report.exit_code == 0
    return root


def corrected_in_label_studio(out: Path, back: Path) -> dict[str, int]:
    """Remove the first box of each photo and draw one at its centre. Return image_id -> number of boxes."""
    project, counts = [], {}
    for n, task in enumerate(
        task for file in sorted(out.glob("tasks-*.json")) for task in json.loads(file.read_text())
    ):
        result: list[dict[str, Any]] = task["predictions"][0]["result"][1:]
        value = {
            "x": 45,
            "y": 45,
            "width": 6,
            "height": 6,
            "rotation": 0,
            "rectanglelabels": ["acne"],
        }
        size = {"original_width": task["data"]["width"], "original_height": task["data"]["height"]}
        common = {
            "type": "rectanglelabels",
            "from_name": "label",
            "to_name": "image",
            "image_rotation": 0,
        }
        result.append({"id": "drawn", "value": value, **common, **size})
        annotation = {"id": n, "completed_by": 1, "was_cancelled": False, "result": result}
        project.append(
            {
                "id": n,
                "data": task["data"],
                "annotations": [annotation],
                "predictions": task["predictions"],
            }
        )
        counts[task["data"]["image_id"]] = len(result)
    back.mkdir()
    (back / "project-1-at-2026-11-30.json").write_text(json.dumps(project))
    return counts


def corrected_in_cvat(out: Path, back: Path) -> dict[str, int]:
    """Correct the boxes in the same way, with two digits after the point, as CVAT writes them."""
    tree = ElementTree.parse(out / "annotations.xml")
    counts = {}
    for image in tree.getroot().iter("image"):
        for box in list(image)[:1]:
            image.remove(box)
        for box in image:
            for name in ("xtl", "ytl", "xbr", "ybr"):
                box.set(name, f"{float(box.attrib[name]):.2f}")
        x, y = int(image.attrib["width"]) / 2, int(image.attrib["height"]) / 2
        drawn = {"xtl": x - 9, "ytl": y - 9, "xbr": x + 9, "ybr": y + 9}
        corners = {name: f"{value:.2f}" for name, value in drawn.items()}
        ElementTree.SubElement(
            image, "box", {"label": "acne", "source": "manual", "occluded": "0", **corners}
        )
        counts[image.attrib["name"]] = len(image)
    back.mkdir()
    tree.write(back / "annotations.xml")
    return counts


@pytest.mark.parametrize("form", ["label-studio", "cvat"])
def test_what_comes_back_corrected_is_evaluated_and_trained_on_as_it_is(
    scored: Path, tmp_path: Path, form: str
) -> None:
    wanted = ExportRequest(form, selection=Selection(where=LOOSE, uncertain=8))
    exported = export(str(scored / "dest"), str(tmp_path / "out"), wanted)
    assert exported.photos == 8 and exported.boxes > 0
    correct = corrected_in_label_studio if form == "label-studio" else corrected_in_cvat
    counts = correct(tmp_path / "out", tmp_path / "corrected")
    assert set(counts) < set(rows(scored / "dest"))

    request = EvaluationRequest(tmp_path / "corrected", resampling=Resampling(0))
    lesions = evaluate(destination_store(str(scored / "dest")), request).as_json()["all"]["lesions"]
    assert (lesions["photos"], lesions["true_boxes"]) == (8, sum(counts.values()))
    assert 0 < lesions["detection"]["all boxes"]["100"]["ap50"]["value"] < 1

    data = f'train = [{{ truth = "corrected", photos = "{scored / "photos"}", valid_share = 0.25 }}]\nmap'
    recipe = re.sub(r"train = .*?\nmap", lambda _: data, RECIPE, flags=re.DOTALL)
    recipe = recipe.replace('name = "spots"', 'name = "again"\nbase = "starter"').replace(
        "epochs = 6", "iterations = 4"
    )
    (tmp_path / "recipe.toml").write_text(
        recipe.replace("evaluate_every = 2", "evaluate_every = 4")
    )
    outcome = train("detector", tmp_path / "recipe.toml", tmp_path / "packs", SilentProgress())
    assert outcome.pack.name == "again"

    report = skinbatch.score(
        scored / "photos",
        tmp_path / "dest",
        pack=str(tmp_path / "packs/again"),
        engine="local",
        max_failures=1.0,
    )
    assert report.exit_code == 0
    again = rows(tmp_path / "dest")
    assert set(again) == set(rows(scored / "dest"))
    assert {name for name in counts if again[name]["status"] == "ok"} == set(counts)
    assert (
        skinbatch.open(tmp_path / "dest").fingerprint != skinbatch.open(scored / "dest").fingerprint
    )
