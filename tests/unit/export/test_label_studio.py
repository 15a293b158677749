"""Test that Label Studio's own SDK reads the tasks, and that corrected tasks are read as a truth of the scored photos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skinbatch
from skinbatch.annotations.pairing import pair
from skinbatch.annotations.read import read_truth
from skinbatch.errors import UsageError
from skinbatch.export.boxed import ExportedPhoto, Prediction
from skinbatch.export.export import ExportRequest, export
from skinbatch.export.label_studio import CONFIG
from tests.faces import face, jpeg, write_tree
from tests.unit.export.test_round_trips import written


@pytest.fixture(scope="module")
def dest(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Path:
    """Score six photos whose names need quoting, one of them without a lesion."""
    root = tmp_path_factory.mktemp("scored")
    write_tree(
        root / "my photos",
        {f"p{n % 2}/{n} é.jpg": jpeg(face(n % 4, n % 3, shade=n)) for n in range(6)},
    )
    skinbatch.score(root / "my photos", root / "dest", pack=fake_pack, engine="local")
    return root / "dest"


def tasks(out: Path) -> list[dict[str, Any]]:
    return [
        task for file in sorted(out.glob("tasks-*.json")) for task in json.loads(file.read_text())
    ]


def submitted(out: Path, back: Path) -> Path:
    """Write the export of Label Studio after every prediction was submitted unchanged."""
    done = [
        {
            "id": n,
            "data": task["data"],
            "annotations": [{"id": n, "result": task["predictions"][0]["result"]}],
        }
        for n, task in enumerate(tasks(out), 1)
    ]
    back.mkdir()
    (back / "project-1.json").write_text(json.dumps(done))
    return back


def test_label_studios_own_sdk_accepts_the_configuration_and_every_prediction(
    dest: Path, tmp_path: Path
) -> None:
    interfaces = pytest.importorskip(
        "label_studio_sdk.label_interface", reason="Label Studio's SDK is not installed"
    )
    export(str(dest), str(tmp_path / "out"), ExportRequest("label-studio"))
    interface = interfaces.LabelInterface((tmp_path / "out" / CONFIG).read_text())
    interface.validate()

    assert len(tasks(tmp_path / "out")) == 6
    for task in tasks(tmp_path / "out"):
        assert interface.validate_task({"data": task["data"]})
        (prediction,) = task["predictions"]
        assert interface.validate_prediction(prediction, return_errors=True) == []
    wrong = next(
        task["predictions"][0]
        for task in tasks(tmp_path / "out")
        if task["predictions"][0]["result"]
    )
    wrong["result"] = [{**wrong["result"][0], "from_name": "other"}]
    assert not interface.validate_prediction(wrong)


def test_label_studios_own_converter_finds_the_boxes_of_the_tables(
    dest: Path, tmp_path: Path
) -> None:
    converters = pytest.importorskip(
        "label_studio_sdk.converter", reason="Label Studio's SDK is not installed"
    )
    export(str(dest), str(tmp_path / "out"), ExportRequest("label-studio"))
    source = submitted(tmp_path / "out", tmp_path / "back")
    converter = converters.Converter(
        (tmp_path / "out" / CONFIG).read_text(), str(tmp_path), download_resources=False
    )
    converter.convert_to_coco(
        str(source), str(tmp_path / "coco"), output_image_dir=str(tmp_path / "none")
    )

    found = json.loads((tmp_path / "coco/result.json").read_text())
    boxes = skinbatch.open(dest).boxes().to_pylist()
    ours = sorted(
        [b["x1"], b["y1"], b["x2"] - b["x1"], b["y2"] - b["y1"]] for b in boxes if b["counted"]
    )
    np.testing.assert_allclose(sorted(a["bbox"] for a in found["annotations"]), ours, atol=1e-4)
    assert [category["name"] for category in found["categories"]] == ["acne"]


def test_a_task_repeats_what_the_tables_hold_and_names_photo_and_model(
    dest: Path, tmp_path: Path
) -> None:
    export(str(dest), str(tmp_path / "out"), ExportRequest("label-studio"))
    results = skinbatch.open(dest)
    rows = {row["image_id"]: row for row in results.images().to_pylist()}
    for task in tasks(tmp_path / "out"):
        data, (prediction,) = task["data"], task["predictions"]
        row = rows.pop(data["image_id"])
        assert (data["grade"], data["count"], data["width"]) == (
            row["grade"],
            row["count_total"],
            96,
        )
        assert data["ita"] == pytest.approx(row["ita_degrees"], abs=1e-3)
        assert prediction["model_version"] == f"fake {results.fingerprint}"
        assert prediction["score"] == pytest.approx(1 - data["uncertainty"])
        assert {region["score"] for region in prediction["result"]} <= {0.9}
        assert data["image"].startswith("/data/local-files/?d=my%20photos/p")
        assert len(prediction["result"]) == row["count_total"]
    assert not rows


def test_what_comes_back_has_the_names_and_boxes_of_the_scored_photos(
    dest: Path, tmp_path: Path
) -> None:
    export(str(dest), str(tmp_path / "out"), ExportRequest("label-studio"))
    with pytest.raises(
        UsageError, match=r"no task has a submitted annotation.*export the project as JSON"
    ):
        read_truth(tmp_path / "out")

    back = submitted(tmp_path / "out", tmp_path / "back")
    rows = {row["image_id"]: row for row in skinbatch.open(dest).images().to_pylist()}
    for photos in (None, dest.parent / "my photos"):
        truth = read_truth(back, photos=photos)
        assert {p.name: len(p.labels or ()) for p in truth.photos} == {
            n: r["count_total"] for n, r in rows.items()
        }
        assert all((p.path is None) == (photos is None) for p in truth.photos)
        assert pair([p.name for p in truth.photos], list(rows)).way == "name"


def test_an_image_id_that_is_not_the_end_of_the_address_is_somebody_elses(tmp_path: Path) -> None:
    result = {
        "type": "rectanglelabels",
        "value": {"x": 0, "y": 0, "width": 9, "height": 9, "rectanglelabels": ["x"]},
    }
    task = {
        "data": {"image": "s3://b/photos/7.jpg", "image_id": "patient.jpg"},
        "annotations": [{"result": [result | {"original_width": 10, "original_height": 10}]}],
    }
    (tmp_path / "t.json").write_text(json.dumps([task]))
    assert [p.name for p in read_truth(tmp_path / "t.json").photos] == ["photos/7.jpg"]


def test_boxes_that_people_drew_are_the_annotation_beside_the_prediction(tmp_path: Path) -> None:
    box = np.array([[1, 2, 3, 4]], np.float32)
    drawn = (np.array([[5, 6, 7, 8], [1, 1, 2, 2]], np.float32), ("scar", "acne"))
    prediction = Prediction("m", 0.25)
    photo = ExportedPhoto(
        "a.jpg", 10, 10, box, ("acne",), np.ones(1, np.float32), prediction=prediction, drawn=drawn
    )
    (found,) = written(tmp_path / "out", "label-studio", (photo,)).photos
    np.testing.assert_array_equal(found.boxes, drawn[0])
    assert found.labels == drawn[1]
    (task,) = tasks(tmp_path / "out")
    assert [region["value"]["x"] for region in task["predictions"][0]["result"]] == [10.0]


def test_many_tasks_are_divided_into_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skinbatch.export.label_studio._FILE_BYTES", 400)
    made = tuple(
        ExportedPhoto(f"{n}.jpg", 9, 9, np.array([[1, 2, 3, 4]], np.float32), ("x",))
        for n in range(7)
    )
    truth = written(tmp_path / "out", "label-studio", made)
    assert [photo.name for photo in truth.photos] == [photo.name for photo in made]
    assert len(list((tmp_path / "out").glob("tasks-*.json"))) == 7
