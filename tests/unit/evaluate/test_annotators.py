"""Test that photos that were annotated twice show how exact the annotators are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.evaluate.annotators import annotators
from skinbatch.evaluate.request import Judged
from skinbatch.evaluate.text import noise
from skinbatch.metrics.bootstrap import Resampling


def judged(*photos: tuple[str, int, int | None]) -> Judged:
    """Return judged photos. photos: name, number of boxes, severity."""
    annotated = tuple(
        AnnotatedPhoto(
            name, Path("t.json"), boxes=np.zeros((boxes, 4), np.float32), severity=severity
        )
        for name, boxes, severity in photos
    )
    return Judged(annotated, tuple(name for name, _, _ in photos), np.arange(len(photos)), None)


def test_photos_with_the_same_bytes_are_compared_in_pairs() -> None:
    photos = judged(("a", 4, 0), ("b", 7, 1), ("c", 30, 2), ("d", 31, 2), ("e", 9, 1))

    found = annotators(photos, ["x", "x", "y", "y", None], Resampling(200))

    assert found["pairs"] == 2
    assert found["count_difference"].value == 2.0
    assert found["count_difference"].low == 1.0
    assert found["same_severity"].value == 0.5
    assert next(noise(found)).startswith(
        "2 pairs of photos of this truth have the same bytes: the annotators' counts differ by 2.0 (1.0 to 3.0)"
    )


def test_without_pairs_nothing_is_measured() -> None:
    found = annotators(judged(("a", 4, None), ("b", 7, None)), ["x", "y"], Resampling(10))

    assert found["pairs"] == 0
    assert np.isnan(found["count_difference"].value)
    assert list(noise(found)) == []


def test_the_noise_of_acne04_is_known() -> None:
    found = annotators(judged(("levle0_1.jpg", 4, 0)), ["x"], Resampling(10))

    assert list(noise(found)) == [
        "The annotators of ACNE04 counted 38 pairs of equal photos twice: counts differ by 3.0 on average, grades agree for 79 %."
    ]
