"""AP50, counting error and the threshold, on cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from skinbatch.train.detection_scores import ap50, best_threshold, count_mae
from skinbatch.types import Detections

TRUTH = [np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32), np.array([[5, 5, 15, 15]], np.float32)]


def found(*boxes: tuple[float, float, float, float, float]) -> Detections:
    rows = np.array(boxes, np.float32).reshape(-1, 5)
    return Detections(rows[:, :4], rows[:, 4], np.zeros(len(rows), np.int64))


PERFECT = [found((0, 0, 10, 10, 0.9), (20, 20, 30, 30, 0.8)), found((5, 5, 15, 15, 0.7))]


def test_finding_everything_is_one_and_nothing_is_zero() -> None:
    assert ap50(TRUTH, PERFECT) == pytest.approx(1.0)
    assert ap50(TRUTH, [found(), found()]) == 0.0


def test_a_box_counts_from_half_overlap_on() -> None:
    one = [np.array([[0, 0, 10, 10]], np.float32)]
    assert ap50(one, [found((0, 0, 10, 5.1, 0.9))]) == pytest.approx(1.0)
    assert ap50(one, [found((0, 0, 10, 4.9, 0.9))]) == 0.0


def test_a_false_box_above_a_true_one_halves_precision() -> None:
    one = [np.array([[0, 0, 10, 10]], np.float32)]
    assert ap50(one, [found((50, 50, 60, 60, 0.9), (0, 0, 10, 10, 0.8))]) == pytest.approx(0.5)
    assert ap50(one, [found((0, 0, 10, 10, 0.9), (50, 50, 60, 60, 0.8))]) == pytest.approx(1.0)


def test_one_of_three_found_reaches_a_third_of_recall() -> None:
    assert ap50(TRUTH, [found((0, 0, 10, 10, 0.9)), found()]) == pytest.approx(34 / 101)


def test_more_than_a_hundred_boxes_a_photo_count() -> None:
    corners = np.array([(x, y) for x in range(0, 300, 20) for y in range(0, 200, 20)], np.float32)
    boxes = np.concatenate((corners, corners + 10), axis=1)
    all_found = Detections(boxes, np.linspace(0.9, 0.1, len(boxes), dtype=np.float32), np.zeros(len(boxes), np.int64))
    assert len(boxes) == 150 and ap50([boxes], [all_found]) == pytest.approx(1.0)


def test_the_threshold_is_the_one_that_counts_best() -> None:
    three = found((0, 0, 1, 1, 0.9), (0, 0, 1, 1, 0.6), (0, 0, 1, 1, 0.3))
    noisy = [three, found((5, 5, 15, 15, 0.55), (0, 0, 1, 1, 0.4))]
    assert count_mae(TRUTH, noisy, 0.05) == 1.0
    threshold, error = best_threshold(TRUTH, noisy)
    assert error == 0.0 and 0.4 < threshold <= 0.55
