"""Test that counts at other scores are those that the pipeline would give, and that crowds are not counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.bench_evaluate import CLASSES, generate
from skinbatch.evaluate.counted import counts_at
from skinbatch.evaluate.evaluation import Evaluation, evaluate
from skinbatch.evaluate.request import EvaluationRequest
from skinbatch.evaluate.scoring_tables import PredictedBoxes
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.boxes import Boxes
from skinbatch.reading import destination_store
from skinbatch.reading import open as open_destination
from tests.unit.metrics.support import coco_eval

NEAR, TOUCHING, FAR, OFF_SKIN = [0, 0, 10, 10], [8, 8, 20, 20], [50, 50, 60, 60], [80, 80, 90, 90]


@pytest.fixture
def found() -> PredictedBoxes:
    """Return three photos, the second without boxes; the best box of the first is off the skin."""
    boxes = Boxes.stack(
        [[OFF_SKIN, NEAR, TOUCHING, FAR], np.zeros((0, 4)), [NEAR]],
        [[0.95, 0.9, 0.6, 0.3], [], [0.5]],
    )
    return PredictedBoxes(boxes, np.array([False, True, True, True, True]), ("acne",))


def test_each_box_on_the_skin_counts_from_its_score_on(found: PredictedBoxes) -> None:
    assert counts_at(found, (0.25, 0.5, 0.75), "boxes").tolist() == [
        [3, 2, 1],
        [0, 0, 0],
        [1, 1, 0],
    ]


def test_connected_pieces_count_once(found: PredictedBoxes) -> None:
    assert counts_at(found, (0.25, 0.5, 0.75), "components").tolist() == [
        [2, 1, 1],
        [0, 0, 0],
        [1, 1, 0],
    ]


def with_crowds(truth: Path, marked: Path) -> dict[str, Any]:
    """Return the same truth with two large regions in every photo marked as a crowd, one of an unknown class."""
    data: dict[str, Any] = json.loads(truth.read_text())
    for image in data["images"]:
        w, h = image["width"], image["height"]
        for k, (category, bbox) in enumerate(
            ((0, [0, 0, w / 2, h / 2]), (77, [w / 2, h / 3, w / 3, h / 2]))
        ):
            crowd = {
                "id": 10**6 + 2 * image["id"] + k,
                "image_id": image["id"],
                "category_id": category,
                "bbox": bbox,
            }
            data["annotations"].append(crowd | {"iscrowd": 1})
    marked.write_text(json.dumps(data))
    return data


def test_crowds_change_the_average_precision_as_pycocotools_has_it_and_no_count(
    tmp_path: Path,
) -> None:
    generate(tmp_path / "scored", tmp_path / "truth.json", 15, 300, np.random.default_rng(4))
    data = with_crowds(tmp_path / "truth.json", tmp_path / "marked.json")
    store = destination_store(tmp_path / "scored")

    def measured(truth: str) -> Evaluation:
        return evaluate(store, EvaluationRequest(tmp_path / truth, resampling=Resampling(0)))

    without, marked = measured("truth.json"), measured("marked.json")
    numbers = marked.numbers["lesions"]
    assert numbers["true_boxes"] == without.numbers["lesions"]["true_boxes"]
    assert str(numbers["count_error"]) == str(without.numbers["lesions"]["count_error"])
    assert any(
        "30 regions" in note and "neither as right nor as false" in note
        for note in marked.about["notes"]
    )

    names = [image["file_name"] for image in data["images"]]
    true: list[list[Any]] = [[] for _ in names]
    regions: list[list[Any]] = [[] for _ in names]
    found: list[list[Any]] = [[] for _ in names]
    for said in data["annotations"]:
        x, y, w, h = said["bbox"]
        row = (np.array([x, y, x + w, y + h], np.float32), said["category_id"], 1.0)
        (regions if said.get("iscrowd") else true)[said["image_id"]].append(row)
    for box in open_destination(tmp_path / "scored").boxes().to_pylist():
        corners = [box[edge] for edge in ("x1", "y1", "x2", "y2")]
        found[names.index(box["image_id"])].append(
            (corners, CLASSES.index(box["label"]), box["score"])
        )
    truth, crowds, boxes = (stacked(rows) for rows in (true, regions, found))
    merged = coco_eval(truth, boxes, crowds, by_class=False, most=[100]).eval["precision"]
    ap50 = numbers["detection"]["all boxes"]["100"]["ap50"].value
    assert ap50 == pytest.approx(merged[0].mean(), abs=1e-12)
    assert ap50 > without.numbers["lesions"]["detection"]["all boxes"]["100"]["ap50"].value
    by_class = coco_eval(truth, boxes, crowds, by_class=True, most=[100]).eval["precision"]
    for k, name in enumerate(CLASSES):
        ours = numbers["detection_by_class"]["all boxes"]["100"][name]["ap"].value
        assert ours == pytest.approx(by_class[:, :, k].mean(), abs=1e-12)


def stacked(rows: list[list[Any]]) -> Boxes:
    """Stack rows of (corners, class, score) for each photo."""
    corners, labels, scores = ([[row[k] for row in each] for each in rows] for k in range(3))
    return Boxes.stack(corners, scores, labels)
