"""Measure how well grades agree with those that people gave."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skinbatch.metrics.bootstrap import Estimate, Resampling, bootstrap

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# accuracy: share of the photos with the true grade; a photo without a grade counts as wrong.
# quadratic_kappa: Cohen's kappa with squared weights (Cohen 1968; scikit-learn's
# `cohen_kappa_score(weights="quadratic")`) over the photos that have a grade.
NUMBERS = ("accuracy", "quadratic_kappa")


def confusion(truth: Ints, predicted: Ints, levels: int) -> Ints:
    """Return (levels, levels + 1) numbers of photos.

    Rows are the true grade. Columns are the predicted grade, the last one for photos without a grade.
    truth: (N,) from 0. predicted: (N,), -1 for none.
    """
    return _cells(truth, predicted, levels).sum(axis=0).reshape(levels, levels + 1).astype(np.int64)


def agreement(
    truth: Ints, predicted: Ints, levels: int, how: Resampling, *, groups: Ints | None = None
) -> dict[str, Estimate]:
    """Return NUMBERS with intervals.

    They are NaN without photos; kappa is also NaN if all photos have the same grade. truth, predicted:
    see confusion.
    """

    def numbers(sums: Floats) -> Floats:
        table = sums.reshape(-1, levels, levels + 1)
        return np.stack([_accuracy(table), _kappa(table[:, :, :levels])], axis=1)

    return dict(
        zip(
            NUMBERS,
            bootstrap(_cells(truth, predicted, levels), numbers, how, groups=groups),
            strict=True,
        )
    )


def _cells(truth: Ints, predicted: Ints, levels: int) -> Floats:
    """Return (N, levels x (levels + 1)) with one 1 for each photo."""
    cells = np.zeros((len(truth), levels * (levels + 1)))
    cells[
        np.arange(len(truth)), truth * (levels + 1) + np.where(predicted < 0, levels, predicted)
    ] = 1
    return cells


def _accuracy(table: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.trace(table, axis1=1, axis2=2) / table.sum(axis=(1, 2)), np.float64)


def _kappa(table: Floats) -> Floats:
    levels = table.shape[1]
    apart = (np.arange(levels)[:, None] - np.arange(levels)) ** 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = (
            table.sum(axis=2)[:, :, None]
            * table.sum(axis=1)[:, None, :]
            / table.sum(axis=(1, 2))[:, None, None]
        )
        return np.asarray(
            1 - (apart * table).sum(axis=(1, 2)) / (apart * chance).sum(axis=(1, 2)), np.float64
        )
