"""Fit anchors to boxes: k-means with the distance 1 - IoU, as in YOLO9000 (2016)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Sizes = NDArray[np.float64]

RESTARTS = 8
ROUNDS = 100


def fit_anchors(wh: Sizes, k: int, seed: int = 0) -> Sizes:
    """Return the anchors with the best mean IoU of several starts: (k, 2), small area first.

    A centre is the median of its cluster. Unlike the mean, it does not follow the few boxes that
    are many times larger. The same seed gives the same anchors.

    Args:
        wh: (N, 2) widths and heights, over 0.
        k: number of anchors.
        seed: of the random starts.

    Raises:
        ValueError: there are fewer different boxes than anchors.
    """
    points = np.asarray(wh, np.float64)
    different = len(np.unique(points, axis=0))
    if not 1 <= k <= different:
        raise ValueError(f"{k} anchors from {different} different boxes")
    rng = np.random.default_rng(seed)
    fits = [_lloyd(points, _spread(points, k, rng)) for _ in range(RESTARTS)]
    best = max(fits, key=lambda centres: mean_iou(points, centres))
    return best[np.argsort(best.prod(1), kind="stable")]


def mean_iou(wh: Sizes, anchors: Sizes) -> float:
    """Return the mean over boxes (N, 2) of the IoU with the nearest anchor of (K, 2)."""
    return float(size_iou(wh, anchors).max(1).mean())


def size_iou(a: Sizes, b: Sizes) -> Sizes:
    """Return the (N, K) IoU of boxes (N, 2) and (K, 2), widths and heights with a corner shared."""
    inter = np.minimum(a[:, None], b[None]).prod(2)
    return np.asarray(inter / (a.prod(1)[:, None] + b.prod(1)[None] - inter))


def _spread(points: Sizes, k: int, rng: np.random.Generator) -> Sizes:
    """Draw k different boxes, each by its squared distance from the earlier ones (k-means++)."""
    chosen = [points[rng.integers(len(points))]]
    far = 1 - size_iou(points, np.array(chosen))[:, 0]
    while len(chosen) < k:
        chosen.append(points[rng.choice(len(points), p=far**2 / (far**2).sum())])
        far = np.minimum(far, 1 - size_iou(points, chosen[-1][None])[:, 0])
    return np.array(chosen)


def _lloyd(points: Sizes, centres: Sizes) -> Sizes:
    """Return the best centres along the way: medians do not lower this distance at every step."""
    best, best_iou = centres, 0.0
    nearest = np.full(len(points), -1)
    for _ in range(ROUNDS):
        iou = size_iou(points, centres)
        if (covered := float(iou.max(1).mean())) > best_iou:
            best, best_iou = centres, covered
        now = iou.argmax(1)
        if (now == nearest).all():
            break
        nearest = now
        centres = np.array(
            [
                np.median(points[now == i], axis=0) if (now == i).any() else centre
                for i, centre in enumerate(centres)
            ]
        )
    return best
