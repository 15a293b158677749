"""Test that intervals hold the truth as often as they should."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array

from skinbatch.metrics.bootstrap import Estimate, Resampling, bootstrap, mean_of_defined, numbered

Floats = NDArray[np.float64]


def mean(sums: Floats) -> Floats:
    """Return the mean of columns: photos, values."""
    with np.errstate(invalid="ignore"):
        return sums[:, 1:] / sums[:, :1]


def parts_of(values: Floats) -> Floats:
    return np.stack([np.ones(len(values)), values], axis=1)


def test_a_95_percent_interval_holds_the_mean_of_a_known_distribution_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(400):
        (found,) = bootstrap(parts_of(rng.normal(3, 2, 80)), mean, Resampling(300, seed=seed))
        held += found.low <= 3 <= found.high
    # By the binomial distribution, 400 draws of 0.95 are within 0.92 and 0.98 in all but 1 of 200
    # cases. Percentile intervals of 80 are a little short.
    assert 0.91 <= held / 400 <= 0.98


def test_its_width_is_that_of_the_normal_theory() -> None:
    values = np.random.default_rng(1).normal(0, 1, 2000)
    (found,) = bootstrap(parts_of(values), mean, Resampling(2000))
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(
        2 * 1.96 * values.std() / np.sqrt(2000), rel=0.06
    )
    (wide,) = bootstrap(parts_of(values), mean, Resampling(2000, level=0.99))
    assert wide.low < found.low < found.high < wide.high


def test_photos_of_one_patient_are_drawn_together() -> None:
    patients = np.random.default_rng(2).normal(0, 1, 50)
    values, groups = np.repeat(patients, 20), np.repeat(np.arange(50), 20)
    (by_photo,) = bootstrap(parts_of(values), mean, Resampling(1000))
    (by_patient,) = bootstrap(parts_of(values), mean, Resampling(1000), groups=groups)
    (alone,) = bootstrap(parts_of(patients), mean, Resampling(1000))
    assert by_patient.value == pytest.approx(by_photo.value)
    assert [by_patient.low, by_patient.high] == pytest.approx([alone.low, alone.high])
    assert by_patient.high - by_patient.low > 3 * (by_photo.high - by_photo.low)


def test_sparse_tables_give_what_dense_ones_give() -> None:
    rng = np.random.default_rng(3)
    table = np.where(rng.random((60, 5)) < 0.3, rng.random((60, 5)), 0)
    groups = rng.integers(0, 9, 60)
    for members in (None, groups):
        dense = bootstrap(table, lambda sums: sums, Resampling(100), groups=members)
        sparse = bootstrap(csr_array(table), lambda sums: sums, Resampling(100), groups=members)
        for a, b in zip(dense, sparse, strict=True):
            assert [a.value, a.low, a.high] == pytest.approx([b.value, b.low, b.high])


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    parts = parts_of(np.random.default_rng(4).random(30))
    first = bootstrap(parts, mean, Resampling(100, seed=7))
    assert bootstrap(parts, mean, Resampling(100, seed=7)) == first
    assert bootstrap(parts, mean, Resampling(100, seed=8)) != first


def test_more_samples_than_are_held_at_once_are_all_different() -> None:
    """Draw more than one block.

    If each block began anew, half of the samples would repeat the others.
    """
    parts = parts_of(np.random.default_rng(5).random(500))
    (found,) = bootstrap(parts, mean, Resampling(130))
    (first,) = bootstrap(parts, mean, Resampling(64))
    assert (found.low, found.high) != (first.low, first.high)


def test_without_samples_or_photos_there_is_no_interval() -> None:
    (single,) = bootstrap(parts_of(np.ones(1)), mean, Resampling(10))
    assert single.value == 1 and np.isnan(single.low)
    (one_patient,) = bootstrap(
        parts_of(np.arange(3).astype(np.float64)),
        mean,
        Resampling(10),
        groups=np.zeros(3, np.int64),
    )
    assert one_patient.value == 1 and np.isnan(one_patient.low)
    (found,) = bootstrap(parts_of(np.ones(3)), mean, Resampling(0))
    assert found.value == 1 and np.isnan([found.low, found.high]).all()
    (nothing,) = bootstrap(np.zeros((0, 2)), mean, Resampling(10))
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()


def test_samples_that_lack_a_number_are_left_out_and_an_undefined_number_has_no_interval() -> None:
    rare = np.zeros((40, 2))
    rare[0] = 1  # one of three samples has nothing in it that the mean is over
    (found,) = bootstrap(rare, mean, Resampling(200))
    assert (found.value, found.low, found.high) == (1, 1, 1)
    (never,) = bootstrap(np.zeros((40, 2)), mean, Resampling(200))
    assert np.isnan([never.value, never.low]).all()


def test_an_exact_value_may_stand_beside_resampled_ones() -> None:
    (found,) = bootstrap(
        parts_of(np.arange(10).astype(np.float64)), mean, Resampling(50), exact=np.array([4.25])
    )
    assert found.value == 4.25 and found.low < 4.5 < found.high


def test_groups_are_numbered_by_name() -> None:
    assert numbered(["b", "a", "b"], "123").tolist() == [1, 0, 1]
    assert numbered(["b", None, "a", "", "b"], "12345").tolist() == [3, 0, 2, 1, 3]
    assert numbered(["b", None, None], "122").tolist() == [1, 0, 0]


def test_the_mean_of_what_is_defined() -> None:
    values = np.array([[1, np.nan, 3], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(mean_of_defined(values, axis=1), [2, np.nan])


def test_an_estimate_has_no_interval_of_its_own() -> None:
    assert np.isnan([Estimate(1.0).low, Estimate(1.0).high]).all()
