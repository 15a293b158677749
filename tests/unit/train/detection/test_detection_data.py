"""Test gathered photos as a detector gets them: boxes in the photo's own pixels, as many as the network is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import skinbatch
from jobs.bench_evaluate import CLASSES, generate
from skinbatch.config import ModelSettings
from skinbatch.evaluate.evaluation import evaluate
from skinbatch.evaluate.request import EvaluationRequest
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.models.detectors.mmdet.family import detector_spec
from skinbatch.models.stages import DetectorStage
from skinbatch.reading import destination_store
from skinbatch.train.detection.detection_data import DetectionData, Faces, boxed
from skinbatch.train.detection.scaled_photos import NO_BOXES, NO_LABELS, BoxedPhoto
from skinbatch.train.detection.scores import DetectedPhotos
from skinbatch.train.fitting.recipe_parts import gather_part, parts_of
from skinbatch.train.photos.photo_store import StoredPhoto
from skinbatch.train.recipe_file import read_recipe
from skinbatch.types import Detections
from tests.unit.annotations.support import photo, voc
from tests.unit.train.detection.spotted import write_spotted


def data_of(recipe_file: Path, size: int = 128) -> DetectionData:
    recipe = read_recipe(recipe_file)
    stage = recipe.model.stage
    assert isinstance(stage, DetectorStage)
    spec = detector_spec(stage.model_copy(update={"size": size}), ModelSettings())
    (part,) = parts_of(recipe)
    return boxed(
        gather_part(recipe, part),
        part.data,
        stage.classes,
        Faces(None, False, "cpu"),
        spec,
        "recipe.toml",
    )


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Write forty photos of 128 x 128, and one of 400 x 300 that was annotated on a copy of half the size."""
    made = write_spotted(tmp_path)
    photo(tmp_path / "train" / "half.jpg", width=400, height=300)
    voc(tmp_path / "train" / "half.xml", [[20, 30, 60, 80], [100, 50, 101, 51]], size=(200, 150))
    return made


def test_boxes_of_a_scaled_copy_are_where_the_lesion_is(recipe: Path) -> None:
    (found,) = [p for p in data_of(recipe, size=512).train if p.stored.name.endswith("half.jpg")]
    assert (found.width, found.height) == (400, 300)
    assert found.boxes[0].tolist() == [40, 60, 120, 160]


def test_boxes_that_are_too_small_for_the_network_are_told_and_not_counted(recipe: Path) -> None:
    data = data_of(recipe)
    drawn = sum(1 + n % 6 for n in range(40)) + 2
    (train,) = [count for count in data.counts if count.part == "train" and count.things]
    assert train.things == {"acne": drawn - 1} == {"acne": sum(len(p.boxes) for p in data.train)}
    (note,) = data.notes
    assert note.startswith("1 boxes are smaller than 3 pixels") and "half.jpg" in note
    assert data_of(recipe, size=1024).notes == ()


def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    """Treat crowds as `evaluate` and COCO do: training must choose its weights by the same AP."""
    recipe = write_spotted(tmp_path)
    photo(tmp_path / "valid/crowd.jpg", width=128, height=128)
    image = {"id": 1, "file_name": "crowd.jpg", "width": 64, "height": 64}
    boxes = [[5, 5, 10, 10], [32, 32, 20, 20]]
    said = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": n}
        for n, box in enumerate(boxes)
    ]
    coco = {"images": [image], "annotations": said, "categories": [{"id": 1, "name": "papules"}]}
    for file in (tmp_path / "valid").glob("levle*"):
        file.unlink()
    (tmp_path / "valid/truth.json").write_text(json.dumps(coco), encoding="utf-8")
    photos = data_of(recipe).valid
    assert [p.crowds.tolist() for p in photos] == [[[64, 64, 104, 104]]]
    assert [p.boxes.tolist() for p in photos] == [[[10, 10, 30, 30]]]
    found = Detections(
        np.array([[70, 70, 80, 80], [80, 80, 100, 100], [10, 10, 30, 30]], np.float32),
        np.array([0.9, 0.8, 0.7], np.float32),
        np.zeros(3, np.int64),
    )
    assert DetectedPhotos.of(photos, [found]).ap50() == pytest.approx(1)
    alone = [replace(p, crowds=NO_BOXES, crowd_labels=NO_LABELS) for p in photos]
    assert DetectedPhotos.of(alone, [found]).ap50() == pytest.approx(1 / 3)
    ap, *_ = DetectedPhotos.of(photos, [found]).metrics(0.5, ("acne",))
    assert ap.name == "AP50" and ap.value == pytest.approx(1)


def test_crowds_are_left_out_where_evaluate_leaves_them_out(tmp_path: Path) -> None:
    """Leave out crowds of a class that is mapped to none, and do not count boxes in one of an unknown class."""
    recipe = write_spotted(tmp_path)
    for file in (tmp_path / "valid").glob("levle*"):
        file.unlink()
    generate(tmp_path / "scored", tmp_path / "plain.json", 6, 150, np.random.default_rng(3))
    truth = json.loads((tmp_path / "plain.json").read_text(encoding="utf-8"))
    truth["categories"] += [{"id": 90, "name": "hair"}, {"id": 91, "name": "moles"}]
    regions = {90: [0, 0, 1024, 700], 91: [600, 0, 424, 1024]}
    for image in truth["images"]:
        photo(tmp_path / "valid" / image["file_name"], width=1024, height=1024)
        for category, box in regions.items():
            crowd = {"image_id": image["id"], "category_id": category, "bbox": box, "iscrowd": 1}
            truth["annotations"].append(crowd | {"id": 10**6 + len(truth["annotations"])})
    (tmp_path / "valid" / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    text = recipe.read_text(encoding="utf-8").replace(
        'classes = ["acne"]', f"classes = {json.dumps(CLASSES)}"
    )
    recipe.write_text(
        text.replace('"*" = "acne"', 'papules = "papule", hair = ""'), encoding="utf-8"
    )
    photos = data_of(recipe).valid
    assert {label for p in photos for label in p.crowd_labels.tolist()} == {-1}
    boxes = skinbatch.open(tmp_path / "scored").boxes().to_pylist()
    found = [[row for row in boxes if row["image_id"] == p.stored.name] for p in photos]
    detections = [
        Detections(
            np.array(
                [[row[edge] for edge in ("x1", "y1", "x2", "y2")] for row in rows], np.float32
            ).reshape(-1, 4),
            np.array([row["score"] for row in rows], np.float32),
            np.array([CLASSES.index(row["label"]) for row in rows], np.int64),
        )
        for rows in found
    ]
    ours = {
        (m.name, m.of): m.value for m in DetectedPhotos.of(photos, detections).metrics(0.3, CLASSES)
    }
    request = EvaluationRequest(tmp_path / "valid", names={"hair": ""}, resampling=Resampling(0))
    numbers = evaluate(destination_store(tmp_path / "scored"), request).numbers["lesions"]
    assert ours["AP50", ""] == pytest.approx(
        numbers["detection"]["all boxes"]["500"]["ap50"].value, abs=1e-6
    )
    by_class = numbers["detection_by_class"]["all boxes"]["500"]
    for name in CLASSES:
        assert ours["AP", name] == pytest.approx(by_class[name]["ap"].value, abs=1e-6)


def test_photos_that_are_called_alike_in_two_sources_are_resampled_apart() -> None:
    files = (("p1", "a/1.jpg"), (None, "a/2.jpg"), (None, "b/2.jpg"))
    photos = [
        BoxedPhoto(
            StoredPhoto(Path(file).name, Path("/" + file)), 9, 9, NO_BOXES, NO_LABELS, group=group
        )
        for group, file in files
    ]
    nothing = Detections(NO_BOXES, np.zeros(0, np.float32), NO_LABELS)
    groups = DetectedPhotos.of(photos, [nothing] * 3)._groups()
    assert groups is not None
    assert len(set(groups.tolist())) == 3
