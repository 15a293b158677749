"""Estimate how certain a number is by a percentile bootstrap over photos or groups of photos.

Efron, Tibshirani: An Introduction to the Bootstrap (1993), chapter 13.

Every number here is a function of sums over photos: true boxes, squared errors, common pixels and
so on. A resample is therefore a product of the table of these sums (`parts`) with random weights,
and no photo is looked at twice. `statistic` is the function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

Floats = NDArray[np.float64]
# (B, K) sums over the photos of B samples -> (B, M) numbers; NaN where a number is not defined.
Statistic = Callable[[Floats], Floats]

# Number of resamples whose sums are in memory at the same time.
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Estimate:
    """Hold a number and the ends of its interval.

    All are NaN if the number is not defined. The ends are NaN if nothing was resampled.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True, slots=True)
class Resampling:
    """Set how to resample.

    replicates: number of resamples; 0 for no intervals. level: share of the resamples inside an
    interval. seed: of the random draws.
    """

    replicates: int = 1000
    level: float = 0.95
    seed: int = 0


def bootstrap(
    parts: Floats | csr_array,
    statistic: Statistic,
    how: Resampling,
    *,
    groups: NDArray[np.int64] | None = None,
    exact: Floats | None = None,
) -> list[Estimate]:
    """Return one estimate for each of the M numbers of `statistic`.

    Resamples for which a number is not defined, such as those without a photo of a class, are left
    out of its interval. A number that is not defined for the photos themselves has no interval.
    Nor has anything computed from a single photo or group.

    Args:
        parts: (N, K), dense or sparse, one row for each photo.
        groups: (N,) group of each photo; a group, such as a patient, is drawn as a whole. None
            draws each photo on its own.
        exact: (M,) values to report if `parts` are rounded to bins. None: the statistic of all
            photos.
    """
    rows = parts if groups is None else _by_group(parts, groups)
    value = (
        statistic(np.asarray(rows.sum(axis=0), np.float64).reshape(1, -1))[0]
        if exact is None
        else exact
    )
    if not how.replicates or rows.shape[0] < 2:
        return [Estimate(float(v)) for v in value]
    drawn = replicates(rows, statistic, how)
    tail = 50 * (1 - how.level)
    low, high = np.full(len(value), np.nan), np.full(len(value), np.nan)
    for m in range(len(value)):
        defined = drawn[:, m][np.isfinite(drawn[:, m])]
        if len(defined) and np.isfinite(value[m]):
            low[m], high[m] = np.percentile(defined, (tail, 100 - tail))
    return [
        Estimate(float(v), float(a), float(b)) for v, a, b in zip(value, low, high, strict=True)
    ]


def replicates(rows: Floats | csr_array, statistic: Statistic, how: Resampling) -> Floats:
    """Return (how.replicates, M) numbers, one row for each resample of the rows."""
    n = rows.shape[0]
    random = np.random.default_rng(how.seed)
    columns: Any = csr_array(rows.T) if issparse(rows) else np.ascontiguousarray(rows.T)
    values = []
    for start in range(0, how.replicates, _AT_ONCE):
        some = min(_AT_ONCE, how.replicates - start)
        weights = np.empty((n, some))
        for b in range(some):
            weights[:, b] = np.bincount(random.integers(0, n, n), minlength=n)
        values.append(statistic(np.ascontiguousarray((columns @ weights).T)))
    return np.concatenate(values)


def mean_of_defined(values: Floats, axis: int) -> Floats:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(
            np.where(defined, values, 0).sum(axis=axis) / defined.sum(axis=axis), np.float64
        )


def numbered(names: Sequence[str | None], photos: Sequence[object]) -> NDArray[np.int64]:
    """Return (N,) numbers for groups that are given by name. A photo without one is its own group.

    photos: what tells the N photos apart. One photo that is there twice is one group.

    >>> numbered(["b", None, "b", None], ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]).tolist()
    [2, 0, 2, 1]
    """
    named = [name or f"/{photo}" for name, photo in zip(names, photos, strict=True)]
    return np.unique(np.asarray(named, dtype=object).astype(str), return_inverse=True)[1].astype(
        np.int64
    )


def _by_group(parts: Floats | csr_array, groups: NDArray[np.int64]) -> Floats | csr_array:
    _, number = np.unique(groups, return_inverse=True)
    ones = np.ones(len(number))
    members = csr_array(
        (ones, (number, np.arange(len(number)))), shape=(number.max(initial=-1) + 1, len(number))
    )
    return members @ parts
