"""Test errors of counts against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.counts import count_error, counts_over

NO_INTERVALS = Resampling(0)


def test_errors_of_four_photos() -> None:
    found = count_error([3, 0, 10, 5], [5, 1, 6, 5], NO_INTERVALS)  # off by 2, 1, -4, 0
    assert found["mae"].value == 7 / 4
    assert found["rmse"].value == pytest.approx(np.sqrt(21 / 4))
    assert found["mean"].value == -1 / 4
    assert found["sd"].value == pytest.approx(np.std([2, 1, -4, 0]))
    assert found["rmse"].value ** 2 == pytest.approx(
        found["mean"].value ** 2 + found["sd"].value ** 2
    )


def test_the_table_of_paper_003_agrees_with_this_standard_deviation() -> None:
    """Use its numbers for YOLOv4: MAE 3.61, RMSE 6.66 and 0.43 +/- 6.65."""
    assert np.sqrt(6.66**2 - 0.43**2) == pytest.approx(6.65, abs=0.005)


def test_intervals_are_around_the_value() -> None:
    rng = np.random.default_rng(0)
    truth = rng.poisson(10, 200)
    for number in count_error(truth, truth + rng.integers(-3, 5, 200), Resampling(300)).values():
        assert number.low < number.value < number.high


def test_no_photos_have_no_error() -> None:
    assert all(np.isnan(number.value) for number in count_error([], [], Resampling(10)).values())


def test_boxes_are_counted_from_each_threshold_on() -> None:
    photo, score = np.array([0, 0, 0, 2]), np.array([0.2, 0.5, 0.9, 0.5])
    table = counts_over(photo, score, 3, np.array([0.1, 0.5, 0.51]))
    assert table.tolist() == [[3, 2, 1], [0, 0, 0], [1, 1, 0]]


def test_a_stored_score_is_compared_as_the_pipeline_does() -> None:
    """Use float32(0.15), which is a little over 0.15, and float32(0.7), a little under 0.7."""
    score = np.array([0.15, 0.7], np.float32).astype(np.float64)
    assert counts_over(np.zeros(2, np.int64), score, 1, np.array([0.15, 0.7])).tolist() == [[2, 0]]
