"""Measure how far annotators agree with themselves. No model can be shown to be more exact."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.evaluate import papers
from skinbatch.evaluate.request import Judged
from skinbatch.metrics.bootstrap import Estimate, Resampling, bootstrap


def annotators(judged: Judged, sha256: Sequence[str | None], how: Resampling) -> dict[str, Any]:
    """Return the annotators' noise: measured on this truth, and known from elsewhere.

    Photos with the same bytes that were annotated under several names are compared in pairs.

    Args:
        sha256: (P,) of the judged photos.

    Returns:
        `pairs`; `count_difference`, the mean absolute difference of the boxes of a pair, and
        `same_severity`, the share of pairs with one severity, both NaN without pairs; and `known`,
        the same of the annotators of a known data set, or None.
    """
    copies: dict[str, list[AnnotatedPhoto]] = {}
    for photo, digest in zip(judged.photos, sha256, strict=True):
        if digest is not None:
            copies.setdefault(digest, []).append(photo)
    pairs = [pair for photos in copies.values() for pair in combinations(photos, 2)]

    differences = [
        float(abs(len(a.boxes) - len(b.boxes)))
        for a, b in pairs
        if a.boxes is not None and b.boxes is not None
    ]
    agreements = [
        float(a.severity == b.severity) for a, b in pairs if None not in (a.severity, b.severity)
    ]
    return {
        "pairs": len(pairs),
        "count_difference": _mean(differences, how),
        "same_severity": _mean(agreements, how),
        "known": _known(judged.photos),
    }


def _mean(values: Sequence[float], how: Resampling) -> Estimate:
    if not values:
        return Estimate(float("nan"))
    parts = np.stack([np.ones(len(values)), np.asarray(values, np.float64)], axis=1)
    (mean,) = bootstrap(parts, lambda sums: sums[:, 1:] / sums[:, :1], how)
    return mean


def _known(photos: Sequence[AnnotatedPhoto]) -> dict[str, Any] | None:
    """Return the published figures if all photos are named like those of ACNE04, `levle0_1.jpg`."""
    if photos and all(photo.severity is not None for photo in photos):
        return dict(papers.ANNOTATORS)
    return None
