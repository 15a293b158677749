"""Measure how well masks cover what people drew, by class.

Dice is 2 |A and B| / (|A| + |B|), IoU is |A and B| / |A or B|.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skinbatch.metrics.bootstrap import Estimate, Resampling, Statistic, bootstrap, mean_of_defined

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# dice, iou: over the pixels of all photos together. photo_dice, photo_iou: mean over photos of each
# photo's own value. Photos where neither people nor the model have the class are left out.
NUMBERS = ("dice", "iou", "photo_dice", "photo_iou")


def overlaps(truth: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> Ints:
    """Return (classes, 3) pixels of one photo: in both, in the truth, predicted.

    truth, predicted: (H, W) indices of classes.
    """
    table = np.bincount(
        truth.ravel().astype(np.int64) * classes + predicted.ravel(), minlength=classes * classes
    )
    table = table.reshape(classes, classes)
    return np.stack([np.diagonal(table), table.sum(axis=1), table.sum(axis=0)], axis=1).astype(
        np.int64
    )


def segmentation(
    pixels: Ints,
    classes: Sequence[str],
    how: Resampling,
    *,
    groups: NDArray[np.int64] | None = None,
) -> dict[str, dict[str, Estimate]]:
    """Return NUMBERS of each class, and under `mean` their means over classes.

    They are NaN for classes that appear nowhere. pixels: (N, classes, 3), `overlaps` of each photo.
    """
    both, true, predicted = (pixels[:, :, k].astype(np.float64) for k in range(3))
    dice, iou = _dice_and_iou(both, true, predicted)
    defined = true + predicted > 0
    parts = np.stack(
        [both, true, predicted, np.where(defined, dice, 0), np.where(defined, iou, 0), defined],
        axis=2,
    )
    estimates = iter(
        bootstrap(
            parts.reshape(len(pixels), 6 * len(classes)),
            _numbers_of(len(classes)),
            how,
            groups=groups,
        )
    )
    return {name: {number: next(estimates) for number in NUMBERS} for name in (*classes, "mean")}


def _numbers_of(classes: int) -> Statistic:
    def numbers(sums: Floats) -> Floats:
        """Return (B, (classes + 1) x 4); the last four are the means over classes."""
        both, true, predicted, dice, iou, photos = np.moveaxis(
            sums.reshape(len(sums), classes, 6), 2, 0
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            by_class = np.stack(
                [*_dice_and_iou(both, true, predicted), dice / photos, iou / photos], axis=2
            )
        return np.concatenate(
            [by_class, mean_of_defined(by_class, axis=1)[:, None]], axis=1
        ).reshape(len(sums), -1)

    return numbers


def _dice_and_iou(both: Floats, true: Floats, predicted: Floats) -> tuple[Floats, Floats]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * both / (true + predicted), both / (true + predicted - both)
