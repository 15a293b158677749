"""Test numbers of classes against scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
)

from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.classification import MEAN, NUMBERS, classification, roc

CLASSES = ("rosacea", "lupus", "keratosis")
NO_INTERVALS = Resampling(0)
Made = tuple[NDArray[np.bool_], NDArray[np.float64]]


@pytest.fixture
def made() -> Made:
    """Return truth and probabilities of 120 photos with ties; photos may have several classes or none."""
    rng = np.random.default_rng(0)
    truth = rng.random((120, 3)) < (0.4, 0.3, 0.2)
    return truth, np.clip(0.4 * truth + rng.random((120, 3)) * 0.7, 0, 1).round(2)


def test_it_agrees_with_scikit_learn(made: Made) -> None:
    truth, probability = made
    chosen = probability >= 0.5
    numbers = classification(truth, probability, chosen, CLASSES, Resampling(200))
    precision, recall, f1, _ = precision_recall_fscore_support(truth, chosen, average=None)
    for k, name in enumerate(CLASSES):
        own = {number: numbers[name][number].value for number in NUMBERS}
        assert own["precision"] == pytest.approx(precision[k])
        assert own["recall"] == pytest.approx(recall[k])
        assert own["f1"] == pytest.approx(f1[k])
        assert own["specificity"] == pytest.approx(recall_score(~truth[:, k], ~chosen[:, k]))
        assert own["balanced_accuracy"] == pytest.approx(
            balanced_accuracy_score(truth[:, k], chosen[:, k])
        )
        assert own["auc"] == pytest.approx(roc_auc_score(truth[:, k], probability[:, k]))
        assert own["average_precision"] == pytest.approx(
            average_precision_score(truth[:, k], probability[:, k])
        )
        assert all(n.low <= n.value <= n.high for n in numbers[name].values())
    assert numbers[MEAN]["recall"].value == pytest.approx(recall.mean())
    assert numbers[MEAN]["auc"].value == pytest.approx(roc_auc_score(truth, probability))


def test_intervals_of_areas_are_of_scikit_learns_areas(made: Made) -> None:
    truth, probability = made
    how = Resampling(60, seed=3)
    numbers = classification(truth, probability, probability >= 0.5, CLASSES, how)
    rng = np.random.default_rng(3)
    drawn = [rng.integers(0, 120, 120) for _ in range(60)]
    for name, area in (("auc", roc_auc_score), ("average_precision", average_precision_score)):
        values = [area(truth[rows, 0], probability[rows, 0]) for rows in drawn]
        low, high = np.percentile(values, (2.5, 97.5))
        assert [numbers["rosacea"][name].low, numbers["rosacea"][name].high] == pytest.approx(
            [low, high]
        )


def test_many_probabilities_are_resampled_in_steps_close_to_the_exact_area(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    truth = rng.random((3000, 1)) < 0.3
    probability = np.clip(0.3 * truth + rng.random((3000, 1)) * 0.7, 0, 1)
    rough = classification(truth, probability, probability > 0.5, ("x",), Resampling(100))["x"]
    monkeypatch.setattr("skinbatch.metrics.classification._STEPS", 10_000)
    exact = classification(truth, probability, probability > 0.5, ("x",), Resampling(100))["x"]
    for name in ("auc", "average_precision"):
        assert rough[name].value == exact[name].value
        assert rough[name].low == pytest.approx(exact[name].low, abs=1e-3)
        assert rough[name].high == pytest.approx(exact[name].high, abs=1e-3)


def test_what_cannot_be_said_is_not_a_number_and_not_in_the_mean() -> None:
    truth = np.array([[True, False, False], [True, False, True], [False, False, True]])
    chosen = np.array([[True, False, False], [True, True, False], [False, False, False]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbers = classification(truth, chosen.astype(float), chosen, CLASSES, Resampling(20))
    lupus, keratosis = numbers["lupus"], numbers["keratosis"]
    assert np.isnan(
        [lupus[n].value for n in ("recall", "f1", "auc", "average_precision", "balanced_accuracy")]
    ).all()
    assert lupus["precision"].value == 0 and lupus["specificity"].value == pytest.approx(2 / 3)
    assert np.isnan(keratosis["precision"].value) and keratosis["recall"].value == 0
    assert numbers[MEAN]["recall"].value == 0.5  # of rosacea and keratosis
    # Of rosacea alone: keratosis was never chosen, lupus is nowhere.
    assert numbers[MEAN]["precision"].value == 1


def test_a_class_apart_is_told_and_not_in_the_mean(made: Made) -> None:
    truth, probability = made
    chosen = probability >= 0.5
    with_it = classification(truth, probability, chosen, CLASSES, NO_INTERVALS)
    without = classification(
        truth, probability, chosen, CLASSES, NO_INTERVALS, apart=("keratosis",)
    )
    assert without["keratosis"] == with_it["keratosis"]
    assert without[MEAN]["recall"].value == pytest.approx(
        np.mean([with_it[name]["recall"].value for name in CLASSES[:2]])
    )


def test_no_photos_have_no_numbers() -> None:
    none = np.zeros((0, 3), np.bool_)
    numbers = classification(none, np.zeros((0, 3)), none, CLASSES, Resampling(10))
    assert all(np.isnan(number.value) for of in numbers.values() for number in of.values())


def test_a_curve_needs_both_kinds_of_photos() -> None:
    truth, probability = np.array([False, True, True]), np.array([0.1, 0.2, 0.3])
    curve = roc(truth, probability)
    assert curve is not None
    assert curve[0][0] == 0 and curve[1][-1] == 1
    assert roc(np.ones(3, np.bool_), probability) is None
    assert roc(np.zeros(0, np.bool_), np.zeros(0)) is None
