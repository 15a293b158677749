"""Measure the error of lesion counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skinbatch.metrics.bootstrap import Estimate, Resampling, bootstrap

Floats = NDArray[np.float64]

# Numbers of the difference found minus true: mean absolute error, root mean square error, mean
# (above 0: too many) and standard deviation. The latter is taken over the photos as they are, so
# that rmse² = mean² + sd², as in the table of paper 003.
NUMBERS = ("mae", "rmse", "mean", "sd")


def count_error(
    truth: ArrayLike,
    predicted: ArrayLike,
    how: Resampling,
    *,
    groups: NDArray[np.int64] | None = None,
) -> dict[str, Estimate]:
    """Return NUMBERS of the count difference with intervals; NaN if there are no photos.

    truth, predicted: (N,) lesions of each photo.
    """
    error = np.asarray(predicted, np.float64) - np.asarray(truth, np.float64)
    parts = np.stack([np.ones(len(error)), np.abs(error), error**2, error], axis=1)
    return dict(zip(NUMBERS, bootstrap(parts, _numbers, how, groups=groups), strict=True))


def counts_over(
    photo: NDArray[np.int64], score: Floats, photos: int, thresholds: Floats
) -> NDArray[np.int64]:
    """Return (photos, T) numbers of boxes at or above each threshold.

    photo, score: (N,) of the boxes. thresholds: (T,), ascending.
    """
    reached = np.searchsorted(thresholds, score, side="right")
    table = np.bincount(
        photo * (len(thresholds) + 1) + reached, minlength=photos * (len(thresholds) + 1)
    )
    table = table.reshape(photos, len(thresholds) + 1)
    return table[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:].astype(np.int64)


def _numbers(sums: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        mae, square, mean = (sums[:, k] / sums[:, 0] for k in (1, 2, 3))
    return np.stack([mae, np.sqrt(square), mean, np.sqrt(np.maximum(square - mean**2, 0))], axis=1)
