"""Anchors fitted to training boxes: k-means with the distance 1 - IoU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skinbatch.errors import UsageError
from skinbatch.models.mmdet_architectures import Anchors


def kmeans_anchors(sizes: NDArray[np.float32], k: int, seed: int = 0, rounds: int = 100) -> NDArray[np.float64]:
    """(k, 2) widths and heights, by area, that stand for `sizes` (N, 2) best; the centre of a cluster is its median."""
    if len(sizes) < k:
        raise ValueError(f"{len(sizes)} boxes cannot make {k} anchors")
    points = sizes.astype(np.float64)
    centres = points[np.random.default_rng(seed).choice(len(points), k, replace=False)]
    nearest = np.full(len(points), -1)
    for _ in range(rounds):
        now = size_iou(points, centres).argmax(1)
        if (now == nearest).all():
            break
        nearest = now
        for i in range(k):
            if (nearest == i).any():
                centres[i] = np.median(points[nearest == i], axis=0)
    return centres[np.argsort(centres.prod(1))]


def size_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, K) IoU of boxes (N, 2) and (K, 2) given by width and height, laid on one corner."""
    inter = np.minimum(a[:, None], b[None]).prod(2)
    return np.asarray(inter / (a.prod(1)[:, None] + b.prod(1)[None] - inter))


def fit_anchors(sizes: NDArray[np.float32], strides: tuple[int, ...], seed: int = 0) -> Anchors:
    """Scales and ratios for levels of `strides`, each twice the one before; every level has all of them.

    The ratios are those of three clusters of shape. The scales are two to an octave, from the smallest of nine clusters
    of size on the first level, so that the levels together leave no gap. Raises UsageError when the largest cluster
    lies beyond the last level.
    """
    sides = np.sqrt(kmeans_anchors(sizes, 9, seed).prod(1))
    shape = np.sqrt(sizes[:, 1] / sizes[:, 0])
    shapes = kmeans_anchors(np.stack((1 / shape, shape), axis=1).astype(np.float32), 3, seed)
    first = sides[0] / strides[0]
    if sides[-1] > 2 * first * strides[-1]:
        raise UsageError(f"strides {strides} end before boxes of {sides[-1]:.0f} px; add a stride")
    return Anchors(
        scales=(round(float(first), 2), round(float(first * np.sqrt(2)), 2)),
        ratios=tuple(sorted(round(float(h / w), 2) for w, h in shapes)),
    )
