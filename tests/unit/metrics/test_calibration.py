"""Test that probabilities are fitted to the truth, and that the remaining error is measured."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.calibration import (
    BINS,
    Calibration,
    fit_calibration,
    held_out_probabilities,
    reliability,
)

NOT_RESAMPLED = Resampling(0)


def drawn(
    number: int, scale: float, shift: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return logits, and truths that are as likely as the logits say after scale and shift."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (number, len(shift)))
    return logits, rng.random(logits.shape) < expit(logits * scale + np.array(shift))


def test_the_scale_and_the_shifts_are_found_again() -> None:
    logits, truth = drawn(6000, 0.4, (-2.0, 1.0))
    found = fit_calibration(logits, truth)
    assert found.scale == pytest.approx(0.4, abs=0.03)
    assert found.shift == pytest.approx([-2.0, 1.0], abs=0.15)
    assert found.probabilities(np.array([[0.0, 0.0]]))[0] == pytest.approx(expit(found.shift))


def test_a_softmax_is_fitted_as_a_whole() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (4000, 3))
    right = Calibration(0.5, np.array([0.5, 0.0, -0.5]), softmax=True).probabilities(logits)
    chosen = (right.cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    found = fit_calibration(logits, np.eye(3, dtype=bool)[chosen], softmax=True)
    assert found.scale == pytest.approx(0.5, abs=0.05)
    probability = found.probabilities(logits)
    assert probability.sum(axis=1) == pytest.approx(1)
    assert np.abs(probability - right).mean() < 0.02


def test_few_photos_do_not_make_certain() -> None:
    found = fit_calibration(np.array([[1.0], [-1.0]]), np.array([[True], [False]]))
    assert found.scale < 3
    with pytest.raises(ValueError, match="one photo at least"):
        fit_calibration(np.zeros((0, 2)), np.zeros((0, 2), bool))


def test_no_photo_is_judged_by_a_calibration_that_saw_its_group() -> None:
    logits, truth = drawn(400, 0.4, (-1.0,))
    groups = [n // 4 for n in range(400)]
    found = held_out_probabilities(logits, truth, groups, 0)
    changed = truth.copy()
    changed[:4] = ~changed[:4]
    again = held_out_probabilities(logits, changed, groups, 0)
    np.testing.assert_allclose(again[:4], found[:4])
    assert np.abs(again[4:] - found[4:]).max() > 0
    alone = held_out_probabilities(logits, truth, ["one"] * 400, 0)
    np.testing.assert_allclose(alone, expit(logits))


def test_the_error_is_the_distance_between_what_is_said_and_what_is_true() -> None:
    probability = np.array([0.95] * 10 + [0.25] * 10)
    true = np.array([True] * 9 + [False] + [True] * 5 + [False] * 5)
    found = reliability(probability, true, NOT_RESAMPLED)
    assert found.error.value == pytest.approx((0.05 + 0.25) / 2)
    assert found.photos.tolist() == [0, 0, 10, 0, 0, 0, 0, 0, 0, 10]
    assert found.share[[2, 9]] == pytest.approx([0.5, 0.9])
    assert np.isnan(found.mean[0])
    assert len(found.photos) == BINS


def test_fitting_makes_the_error_smaller_on_other_photos() -> None:
    logits, truth = drawn(4000, 0.3, (-1.5,))
    found = held_out_probabilities(logits, truth, list(range(4000)), 0)
    bare = reliability(expit(logits[:, 0]), truth[:, 0], NOT_RESAMPLED).error.value
    assert reliability(found[:, 0], truth[:, 0], NOT_RESAMPLED).error.value < 0.3 * bare
    interval = reliability(found[:, 0], truth[:, 0], Resampling(200)).error
    assert interval.low < interval.value < interval.high


def test_a_probability_of_one_falls_into_the_last_bin() -> None:
    assert reliability(np.array([1.0, 0.0]), np.array([True, False]), NOT_RESAMPLED).photos[
        [0, -1]
    ].tolist() == [1, 1]
