"""Test agreement of grades against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix

from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.grades import agreement, confusion


def test_it_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    found = np.clip(truth + rng.integers(-1, 2, 300), 0, 3)
    table = confusion(truth, found, 4)
    np.testing.assert_array_equal(table[:, :4], confusion_matrix(truth, found))
    assert table[:, 4].sum() == 0
    numbers = agreement(truth, found, 4, Resampling(200))
    assert numbers["accuracy"].value == pytest.approx(accuracy_score(truth, found))
    assert numbers["quadratic_kappa"].value == pytest.approx(
        cohen_kappa_score(truth, found, weights="quadratic")
    )
    assert all(n.low < n.value < n.high for n in numbers.values())


def test_a_photo_without_a_grade_is_wrong_and_has_a_column_of_its_own() -> None:
    truth, found = np.array([0, 1, 1, 3]), np.array([0, 1, -1, 3])
    assert confusion(truth, found, 4).tolist() == [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 1],
        [0] * 5,
        [0, 0, 0, 1, 0],
    ]
    numbers = agreement(truth, found, 4, Resampling(0))
    assert (numbers["accuracy"].value, numbers["quadratic_kappa"].value) == (0.75, 1)


def test_being_two_grades_off_weighs_four_times_as_much_as_one() -> None:
    """Use two photos of each of three grades, one of them wrong: observed 1 or 4, of 8 expected by chance in both."""
    truth = np.array([0, 0, 1, 1, 2, 2])
    near = agreement(truth, np.array([0, 1, 1, 1, 2, 2]), 3, Resampling(0))["quadratic_kappa"].value
    far = agreement(truth, np.array([0, 2, 1, 1, 2, 2]), 3, Resampling(0))["quadratic_kappa"].value
    assert near == pytest.approx(cohen_kappa_score(truth, [0, 1, 1, 1, 2, 2], weights="quadratic"))
    assert far == pytest.approx(cohen_kappa_score(truth, [0, 2, 1, 1, 2, 2], weights="quadratic"))
    assert far < near


def test_nothing_to_agree_on_is_not_a_number() -> None:
    none = np.zeros(0, np.int64)
    assert all(np.isnan(n.value) for n in agreement(none, none, 4, Resampling(10)).values())
    same = np.zeros(5, np.int64)
    numbers = agreement(same, same, 4, Resampling(10))
    assert numbers["accuracy"].value == 1 and np.isnan(numbers["quadratic_kappa"].value)
