"""Measure how much the count of a photo depends on the threshold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A box is doubtful if its score is within this share of the threshold.
NEAR = 0.2


def uncertainty(
    photo: NDArray[np.int64],
    score: NDArray[np.float64],
    on_skin: NDArray[np.bool_],
    threshold: float,
    photos: int,
) -> NDArray[np.float64]:
    """Return how uncertain the lesions of each photo are, from 0 to less than 1.

    A box on the skin has the doubt 1 if its score is the threshold. The doubt falls linearly to 0
    at 20 % above and 20 % below the threshold. The uncertainty of a photo is the sum of the doubts,
    divided by one more than the number of its boxes that are counted or doubtful. The one keeps
    photos with a single doubtful box from coming first.

    Args:
        photo: (B,) the photo of each box, from 0.
        score: (B,) the detector's confidence.
        on_skin: (B,) whether the box counts if its score is high enough.
        threshold: the score from which boxes are counted.
        photos: number of photos.

    >>> uncertainty(np.array([0, 0]), np.array([0.5, 0.9]), np.array([True, True]), 0.5, 2).tolist()
    [0.3333333333333333, 0.0]
    """
    if threshold <= 0:
        return np.zeros(photos)
    doubt = np.maximum(0.0, 1.0 - np.abs(score - threshold) / (NEAR * threshold)) * on_skin
    matters = on_skin & ((score >= threshold) | (doubt > 0))

    doubts = np.bincount(photo, doubt, minlength=photos)
    return np.asarray(doubts / (1 + np.bincount(photo, matters, minlength=photos)), np.float64)
