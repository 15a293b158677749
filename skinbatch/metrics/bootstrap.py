"""How sure a number is: percentile bootstrap over photos, or over groups of photos that belong together.

Efron, Tibshirani: An Introduction to the Bootstrap (1993), chapter 13. Every number here is a function of sums over photos
(true boxes, squared errors, pixels in common, ...), so a resample is a product of that table with random weights, and no
photo is looked at twice. `parts` is that table, `statistic` the function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""(B, K) sums over the photos of B samples -> (B, M) numbers; NaN where a number is not defined."""

_AT_ONCE = 64
"""Resamples whose sums are in memory together."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and the ends of its interval; NaN where it is not defined, ends NaN where nothing was resampled."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True, slots=True)
class Resampling:
    """replicates: resamples drawn, 0 for no intervals. level: share of them that an interval holds. seed: of the draws."""

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
    """One estimate for each of the M numbers of `statistic`.

    parts: (N, K), dense or sparse, one row a photo. groups: (N,) numbers of what is drawn as one, such as a patient; None:
    each photo on its own. exact: (M,) values, where `parts` are rounded to bins; None: the statistic of all photos.
    Resamples for which a number is not defined (a class that was not drawn) are left out of its interval; a number that is
    not defined for the photos themselves has no interval, nor has anything of a single photo or group.
    """
    rows = parts if groups is None else _by_group(parts, groups)
    value = statistic(np.asarray(rows.sum(axis=0), np.float64).reshape(1, -1))[0] if exact is None else exact
    if not how.replicates or rows.shape[0] < 2:
        return [Estimate(float(v)) for v in value]
    drawn = replicates(rows, statistic, how)
    tail = 50 * (1 - how.level)
    low, high = np.full(len(value), np.nan), np.full(len(value), np.nan)
    for m in range(len(value)):
        defined = drawn[:, m][np.isfinite(drawn[:, m])]
        if len(defined) and np.isfinite(value[m]):
            low[m], high[m] = np.percentile(defined, (tail, 100 - tail))
    return [Estimate(float(v), float(a), float(b)) for v, a, b in zip(value, low, high, strict=True)]


def replicates(rows: Floats | csr_array, statistic: Statistic, how: Resampling) -> Floats:
    """(how.replicates, M) numbers of as many resamples of all rows, drawn with replacement."""
    n = rows.shape[0]
    random = np.random.default_rng(how.seed)
    columns: Any = csr_array(rows.T) if issparse(rows) else np.ascontiguousarray(rows.T)
    found = []
    for start in range(0, how.replicates, _AT_ONCE):
        some = min(_AT_ONCE, how.replicates - start)
        weights = np.empty((n, some))
        for b in range(some):
            weights[:, b] = np.bincount(random.integers(0, n, n), minlength=n)
        found.append(statistic(np.ascontiguousarray((columns @ weights).T)))
    return np.concatenate(found)


def mean_of_defined(values: Floats, axis: int) -> Floats:
    """The mean of what is not NaN; NaN where nothing is."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, values, 0).sum(axis=axis) / defined.sum(axis=axis), np.float64)


def numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """(N,) numbers of groups that are given by name."""
    return np.unique(np.asarray(names, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)


def _by_group(parts: Floats | csr_array, groups: NDArray[np.int64]) -> Floats | csr_array:
    _, number = np.unique(groups, return_inverse=True)
    ones = np.ones(len(number))
    members = csr_array((ones, (number, np.arange(len(number)))), shape=(number.max(initial=-1) + 1, len(number)))
    return members @ parts
