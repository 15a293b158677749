"""Test AP at any IoU and AP of centres against the numbers that pycocotools' rules give."""

from __future__ import annotations

import numpy as np
import pytest

from skinbatch.metrics.boxes import Boxes
from skinbatch.metrics.detection import curves, match
from skinbatch.metrics.near_boxes import average_precision, centre_precision


def scene(seed: int) -> tuple[Boxes, Boxes]:
    """Return twenty photos with true boxes, found ones that are off by some pixels, and others that are wrong."""
    rng = np.random.default_rng(seed)
    truth, found, scores = [], [], []
    for _ in range(20):
        corners = rng.uniform(0, 200, (rng.integers(0, 9), 2))
        boxes = np.concatenate((corners, corners + rng.uniform(10, 30, corners.shape)), axis=1)
        wrong = np.sort(rng.uniform(0, 230, (rng.integers(0, 5), 2, 2)), axis=1).reshape(-1, 4)
        truth.append(boxes)
        found.append(np.concatenate((boxes + rng.normal(0, 3, boxes.shape), wrong)))
        scores.append(rng.uniform(0, 1, len(found[-1])))
    return Boxes.stack(truth), Boxes.stack(found, scores)


@pytest.mark.parametrize("seed", range(4))
def test_at_one_half_it_is_cocos_ap50(seed: int) -> None:
    truth, found = scene(seed)
    assert average_precision(truth, found, 0.5) == pytest.approx(
        float(curves(match(truth, found)).numbers[0]), abs=1e-9
    )


def test_looser_overlaps_find_no_fewer() -> None:
    truth, found = scene(9)
    numbers = [average_precision(truth, found, iou) for iou in (0.7, 0.5, 0.3)]
    assert numbers[0] < numbers[1] <= numbers[2]


def test_a_hit_by_the_centre_needs_no_overlap_of_extents() -> None:
    truth = Boxes.stack([[[0, 0, 40, 40], [100, 100, 120, 120]]])
    found = Boxes.stack([[[18, 18, 22, 22], [116, 116, 140, 140]]], [[0.9, 0.8]])
    assert average_precision(truth, found, 0.3) == 0
    assert centre_precision(truth, found) == pytest.approx(51 / 101)


def test_a_true_box_is_found_once() -> None:
    truth = Boxes.stack([[[0, 0, 40, 40]]])
    twice = Boxes.stack([[[0, 0, 40, 40], [1, 1, 41, 41]]], [[0.9, 0.95]])
    assert average_precision(truth, twice, 0.3) == 1.0
    again = Boxes.stack([[[0, 0, 40, 40]], [[0, 0, 40, 40]]], [[0.9], [0.95]])
    assert average_precision(Boxes.stack([[[0, 0, 40, 40]], []]), again, 0.3) == pytest.approx(0.5)


def test_without_true_boxes_there_is_no_precision_and_without_found_ones_it_is_nothing() -> None:
    none, one = Boxes.stack([[]]), Boxes.stack([[[0, 0, 4, 4]]])
    assert np.isnan(average_precision(none, one, 0.3))
    assert average_precision(one, none, 0.3) == 0 == centre_precision(one, none)
