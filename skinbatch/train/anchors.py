"""Scales and ratios of anchors, fitted to training boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skinbatch.errors import UsageError
from skinbatch.models.detectors.anchors import fit_anchors
from skinbatch.models.detectors.mmdet_architectures import Anchors


def fit_pyramid(sizes: NDArray[np.float32], strides: tuple[int, ...], seed: int = 0) -> Anchors:
    """Scales and ratios for levels of `strides`, each twice the one before; every level has all of them.

    sizes: (N, 2) widths and heights. The ratios are those of three clusters of shape, or of fewer where all boxes are
    alike. The scales are two to an octave, from the smallest of nine clusters of size on the first level, so that the
    levels together leave no gap. Raises UsageError when the largest cluster lies beyond the last level.
    """
    wh = sizes.astype(np.float64)
    sides = np.sqrt(fit_anchors(wh, min(9, len(np.unique(wh, axis=0))), seed).prod(1))
    shape = np.sqrt(wh[:, 1] / wh[:, 0])
    shapes = fit_anchors(np.stack((1 / shape, shape), axis=1), min(3, len(np.unique(shape))), seed)
    first = sides[0] / strides[0]
    if sides[-1] > 2 * first * strides[-1]:
        raise UsageError(f"strides {strides} end before boxes of {sides[-1]:.0f} px; add a stride")
    return Anchors(
        scales=(round(float(first), 2), round(float(first * np.sqrt(2)), 2)),
        ratios=tuple(sorted(round(float(h / w), 2) for w, h in shapes)),
    )
