"""Test that CVAT gets scores and classes, and that annotations made on smaller copies of the photos are scaled."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import skinbatch
from skinbatch.annotations.checks import check
from skinbatch.annotations.problems import Kind
from skinbatch.annotations.read import read_truth
from skinbatch.evaluate.evaluation import evaluate
from skinbatch.evaluate.request import EvaluationRequest
from skinbatch.export.boxed import ExportedPhoto
from skinbatch.export.export import ExportRequest, export
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.reading import destination_store
from tests.faces import face, jpeg, write_tree
from tests.unit.export.test_round_trips import written


def test_boxes_have_their_scores_and_labels_come_first(tmp_path: Path) -> None:
    boxes = np.array([[1.5, 2, 4, 8]], np.float32)
    scored = ExportedPhoto("sub/a.jpg", 20, 10, boxes, ("acne",), np.array([0.75], np.float32))
    written(tmp_path / "out", "cvat", (scored,))
    root = ElementTree.parse(tmp_path / "out/annotations.xml").getroot()
    assert [node.tag for node in root] == ["version", "meta", "image"]
    label = root.find("meta/task/labels/label")
    assert label is not None and label.findtext("name") == "acne"
    assert label.findtext("attributes/attribute/name") == "score"
    image = root.find("image")
    assert image is not None and image.attrib == {
        "id": "0",
        "name": "sub/a.jpg",
        "width": "20",
        "height": "10",
    }
    (box,) = image
    assert (box.get("xtl"), box.get("ybr"), box.get("source"), box.findtext("attribute")) == (
        "1.5",
        "8.0",
        "auto",
        "0.75",
    )


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Path:
    root = tmp_path_factory.mktemp("scored")
    write_tree(root / "photos", {f"{n}.jpg": jpeg(face(n + 1, n, shade=n)) for n in range(3)})
    skinbatch.score(root / "photos", root / "dest", pack=fake_pack, engine="local")
    return root


def halved(source: Path, out: Path) -> Path:
    """Write the same annotations, drawn on copies of half the size."""
    tree = ElementTree.parse(source / "annotations.xml")
    for node in tree.iter():
        for name in ("width", "height", "xtl", "ytl", "xbr", "ybr"):
            if name in node.attrib:
                value = float(node.attrib[name]) / 2
                node.set(name, str(int(value) if name in ("width", "height") else value))
    out.mkdir()
    tree.write(out / "annotations.xml")
    return out


def test_annotations_drawn_on_smaller_copies_are_evaluated_at_the_size_of_the_photos(
    scored: Path, tmp_path: Path
) -> None:
    export(str(scored / "dest"), str(tmp_path / "whole"), ExportRequest("cvat"))
    truth = halved(tmp_path / "whole", tmp_path / "half")
    assert {(p.width, p.height) for p in read_truth(truth).photos} == {(48, 48)}
    store = destination_store(str(scored / "dest"))
    found = evaluate(store, EvaluationRequest(truth, resampling=Resampling(0))).as_json()
    lesions = found["all"]["lesions"]
    assert (lesions["photos"], lesions["true_boxes"]) == (3, 9)
    assert lesions["detection"]["all boxes"]["100"]["ap50"]["value"] == pytest.approx(1)


def test_training_is_told_of_smaller_copies_and_refuses_another_shape(
    scored: Path, tmp_path: Path
) -> None:
    export(str(scored / "dest"), str(tmp_path / "whole"), ExportRequest("cvat"))
    half = read_truth(halved(tmp_path / "whole", tmp_path / "half"), photos=scored / "photos")
    problems = check({"train": half.photos}, "detector", ("acne",))
    assert len(problems.of(Kind.OTHER_SIZE)) == 3

    write_tree(tmp_path / "other", {f"{n}.jpg": jpeg(face()[:64]) for n in range(3)})
    assert Image.open(tmp_path / "other/0.jpg").size == (96, 64)
    cropped = read_truth(tmp_path / "whole", photos=tmp_path / "other")
    assert len(check({"train": cropped.photos}, "detector", ("acne",)).of(Kind.OTHER_SHAPE)) == 3
