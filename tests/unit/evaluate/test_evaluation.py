"""A made-up destination of several classes, against pycocotools over its tables and truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.bench_evaluate import CLASSES, generate
from skinbatch.errors import UsageError
from skinbatch.evaluate.evaluation import Evaluation, evaluate
from skinbatch.evaluate.request import Request
from skinbatch.evaluate.text import as_text
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.boxes import Boxes
from skinbatch.reading import destination_store
from skinbatch.reading import open as open_destination
from tests.unit.metrics.support import coco_eval

PHOTOS = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    generate(folder / "scored", folder / "truth.json", PHOTOS, 900, np.random.default_rng(2))
    return folder


@pytest.fixture(scope="module")
def found(made: Path) -> Evaluation:
    request = Request(made / "truth.json", resampling=Resampling(50))
    return evaluate(destination_store(made / "scored"), request)


@pytest.fixture(scope="module")
def both(made: Path) -> tuple[list[str], Boxes, Boxes]:
    """Names of the photos, true boxes and found ones, read without our readers."""
    truth: dict[str, Any] = json.loads((made / "truth.json").read_text())
    names = [image["file_name"] for image in truth["images"]]
    true: list[list[Any]] = [[] for _ in names]
    for annotation in truth["annotations"]:
        x, y, w, h = np.array(annotation["bbox"])
        corners = np.array([x, y, x + w, y + h], np.float32).tolist()
        true[annotation["image_id"]].append((corners, annotation["category_id"], 1.0))
    of: list[list[Any]] = [[] for _ in names]
    for row in open_destination(made / "scored").boxes().to_pylist():
        corners = [row[edge] for edge in ("x1", "y1", "x2", "y2")]
        of[names.index(row["image_id"])].append((corners, CLASSES.index(row["label"]), row["score"]))
    return names, _stacked(true), _stacked(of)


def _stacked(rows: list[list[Any]]) -> Boxes:
    """rows: of each photo (corners, class, score)."""
    corners, labels, scores = ([[row[k] for row in each] for each in rows] for k in range(3))
    return Boxes.stack(corners, scores, labels)


def test_merged_and_by_class(found: Evaluation, both: tuple[list[str], Boxes, Boxes]) -> None:
    _, truth, boxes = both
    numbers = found.numbers["lesions"]
    merged = coco_eval(truth, boxes, by_class=False, most=[100]).eval["precision"]
    assert numbers["detection"]["all boxes"]["100"]["ap50"].value == pytest.approx(merged[0].mean(), abs=1e-12)
    by_class = coco_eval(truth, boxes, by_class=True, most=[100]).eval
    ours = numbers["detection_by_class"]["all boxes"]["100"]
    assert list(ours) == [*CLASSES, "mean"]
    for k, name in enumerate(CLASSES):
        precision, recall = by_class["precision"][:, :, k, 0, 0], by_class["recall"][:, k, 0, 0]
        expected = [precision[0].mean(), precision.mean(), recall.mean()]
        assert [ours[name][n].value for n in ("ap50", "ap", "ar")] == pytest.approx(expected, abs=1e-12)
    assert ours["mean"]["ap"].value == pytest.approx(by_class["precision"].mean(), abs=1e-12)
    assert ours["mean"]["ap"].low < ours["mean"]["ap"].value < ours["mean"]["ap"].high


def test_a_group_has_the_numbers_of_its_photos_alone(found: Evaluation, both: tuple[list[str], Boxes, Boxes]) -> None:
    names, truth, boxes = both
    mild = np.array([name.startswith("levle0") for name in names])
    alone = [
        Boxes.stack(
            [b.xyxy[b.photo == n] for n in np.flatnonzero(mild)], [b.score[b.photo == n] for n in np.flatnonzero(mild)]
        )
        for b in (truth, boxes)
    ]
    expected = coco_eval(alone[0], alone[1], by_class=False, most=[500]).eval["precision"][0].mean()
    group = found.slices["severity"]["mild"]
    assert group["photos"] == mild.sum()
    assert group["lesions"]["detection"]["all boxes"]["500"]["ap50"].value == pytest.approx(expected, abs=1e-12)


def test_the_scorings_own_count_is_that_of_its_boxes(found: Evaluation, made: Path) -> None:
    """`count_total` and boxes at the same threshold, two ways to one number."""
    again = evaluate(
        destination_store(made / "scored"), Request(made / "truth.json", thresholds=(0.3,), resampling=Resampling(0))
    )
    at, own = again.numbers["lesions"]["count_error"]
    assert at["threshold"] == own["threshold"] == 0.3
    assert {n: at[n].value for n in ("mae", "rmse", "mean", "sd")} == {
        n: own[n].value for n in ("mae", "rmse", "mean", "sd")
    }


def test_the_text_names_every_class_group_and_the_papers_figures(found: Evaluation) -> None:
    said = as_text(found)
    for word in (*CLASSES, "mild", "very severe", "31.53", "0.536", "By ITA group", "50 bootstrap samples of photos"):
        assert word in said
    assert max(map(len, said.splitlines())) < 260


def test_numbers_that_are_not_defined_are_null_in_json(found: Evaluation) -> None:
    text = json.dumps(found.as_json(), allow_nan=False)
    assert json.loads(text)["all"]["lesions"]["photos"] == PHOTOS


def test_an_unknown_format_is_told(made: Path) -> None:
    with pytest.raises(UsageError, match="format"):
        evaluate(destination_store(made / "scored"), Request(made / "truth.json", format="nonsense"))
