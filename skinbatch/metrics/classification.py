"""Measure how well classes of whole photos are recognised.

Each class is judged against the rest, and the mean over classes is given too. Curves and their
areas come from scikit-learn (`roc_auc_score`, `average_precision_score`, `roc_curve`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from skinbatch.errors import needs_extra
from skinbatch.metrics.bootstrap import Estimate, Resampling, Statistic, bootstrap, mean_of_defined

with needs_extra("train"):
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Numbers of the decisions. balanced_accuracy is the mean of recall and specificity of one class.
# Its mean over classes is not scikit-learn's `balanced_accuracy_score`, which is the mean recall.
DECIDED = ("precision", "recall", "specificity", "f1", "balanced_accuracy")
# Numbers of the probabilities, whatever the threshold: area under the ROC curve, and average
# precision.
RANKED = ("auc", "average_precision")
NUMBERS = (*DECIDED, *RANKED)
MEAN = "mean"

# Number of steps of the probabilities that are resampled. Up to this many different probabilities,
# each is a step of its own.
_STEPS = 2048


def classification(
    truth: Bools,
    probability: Floats,
    chosen: Bools,
    classes: Sequence[str],
    how: Resampling,
    *,
    apart: Collection[str] = (),
    groups: NDArray[np.int64] | None = None,
) -> dict[str, dict[str, Estimate]]:
    """Return NUMBERS of each class with intervals, and under `mean` their means over classes.

    Undefined numbers are NaN and left out of the means: the precision of a class that was never
    chosen, the recall of a class that no photo has, the specificity of a class that all have, and
    the areas of both.

    Args:
        truth, chosen: (N, C) bool.
        probability: (N, C) float.
        apart: classes that the means leave out.
    """
    averaged = np.array(
        [bool(truth[:, k].any()) and name not in apart for k, name in enumerate(classes)], np.bool_
    )
    cells = np.stack(
        [truth & chosen, ~truth & chosen, truth & ~chosen, ~truth & ~chosen], axis=2
    ).astype(np.float64)
    decided = bootstrap(
        cells.reshape(len(truth), 4 * len(classes)),
        _with_mean(_decided, averaged),
        how,
        groups=groups,
    )
    areas = np.array([_areas(truth[:, k], probability[:, k]) for k in range(len(classes))]).reshape(
        -1, len(RANKED)
    )
    exact = np.concatenate([areas, mean_of_defined(areas[averaged], axis=0)[None]]).ravel()
    parts, steps = _ranks(truth, probability)
    ranked = bootstrap(parts, _with_mean(_ranked(steps), averaged), how, groups=groups, exact=exact)
    both = (iter(decided), iter(ranked))
    return {
        name: {number: next(both[number in RANKED]) for number in NUMBERS}
        for name in (*classes, MEAN)
    }


def roc(truth: Bools, probability: Floats) -> tuple[Floats, Floats] | None:
    """Return false and true positive rates of one class, (P,) each, rising.

    Return None if all photos have the class, or none. truth, probability: (N,).
    """
    if truth.all() or not truth.any():
        return None
    false, true, _ = roc_curve(truth, probability)
    return np.asarray(false, np.float64), np.asarray(true, np.float64)


def _areas(truth: Bools, probability: Floats) -> tuple[float, float]:
    if truth.all() or not truth.any():
        return float("nan"), float("nan")
    return float(roc_auc_score(truth, probability)), float(
        average_precision_score(truth, probability)
    )


def _decided(sums: Floats) -> Floats:
    """Return (B, C, 5) DECIDED from (B, C x 4) true/false positives, false/true negatives."""
    tp, fp, fn, tn = np.moveaxis(sums.reshape(len(sums), -1, 4), 2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, specificity = tp / (tp + fn), tn / (tn + fp)
        f1 = np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)
        return np.stack(
            [tp / (tp + fp), recall, specificity, f1, (recall + specificity) / 2], axis=2
        )


def _ranks(truth: Bools, probability: Floats) -> tuple[csr_array, int]:
    """Return the step of each photo in each class, and the number of steps.

    The steps are (N, C x steps x 2), rising, without and with the class.
    """
    photos, classes = truth.shape
    orders = [np.unique(probability[:, k], return_inverse=True)[1] for k in range(classes)]
    different = [int(order.max(initial=0)) + 1 for order in orders]
    steps = min(_STEPS, max(different, default=1))
    columns = [
        (k * steps + order * min(steps, n) // n) * 2 + truth[:, k]
        for k, (order, n) in enumerate(zip(orders, different, strict=True))
    ]
    places = np.stack(columns, axis=1).ravel()
    rows = np.repeat(np.arange(photos), classes)
    return csr_array(
        (np.ones(len(places)), (rows, places)), shape=(photos, classes * steps * 2)
    ), steps


def _ranked(steps: int) -> Statistic:
    def numbers(sums: Floats) -> Floats:
        """Return (B, C, 2) RANKED."""
        negative, positive = np.moveaxis(sums.reshape(len(sums), -1, steps, 2), 3, 0)
        positives = positive.sum(axis=2)
        below = negative.cumsum(axis=2) - negative / 2
        true = positive[:, :, ::-1].cumsum(axis=2)
        chosen = true + negative[:, :, ::-1].cumsum(axis=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            auc = (positive * below).sum(axis=2) / (positives * negative.sum(axis=2))
            precision = np.where(chosen > 0, true / chosen, 0)
            area = (positive[:, :, ::-1] * precision).sum(axis=2) / positives
        return np.stack([auc, np.where(np.isfinite(auc), area, np.nan)], axis=2)

    return numbers


def _with_mean(numbers: Statistic, averaged: Bools) -> Statistic:
    def flat(sums: Floats) -> Floats:
        """Return (B, (C + 1) x M); the last M are the means over the classes that are averaged."""
        by_class = numbers(sums)
        mean = mean_of_defined(by_class[:, averaged], axis=1)
        return np.concatenate([by_class, mean[:, None]], axis=1).reshape(len(sums), -1)

    return flat
