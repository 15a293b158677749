"""Test the numbers of a detector by the source of its validation photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skinbatch.train.detection.measure import by_source
from skinbatch.train.detection.scaled_photos import BoxedPhoto
from skinbatch.train.photos.photo_store import StoredPhoto
from skinbatch.types import Detections


def boxes(number: int) -> NDArray[np.float32]:
    corners = np.arange(number, dtype=np.float32)[:, None] * 20
    return np.concatenate([corners, corners, corners + 10, corners + 10], axis=1)


def photo(name: str, source: str, lesions: int, severity: int | None) -> BoxedPhoto:
    stored = StoredPhoto(name, Path(name))
    labels = np.zeros(lesions, np.int64)
    return BoxedPhoto(stored, 200, 200, boxes(lesions), labels, severity, source=source)


def detections(number: int) -> Detections:
    return Detections(boxes(number), np.full(number, 0.9, np.float32), np.zeros(number, np.int64))


def test_a_sources_count_error_is_of_all_its_photos_whatever_their_severity() -> None:
    photos = [
        photo("mild.jpg", "graded", 2, 0),
        photo("severe.jpg", "graded", 8, 3),
        photo("phone.jpg", "phone", 5, None),
    ]
    metrics = by_source(photos, [detections(1), detections(5), detections(5)], 0.5, ["acne"])
    errors = {
        metric.of: (metric.value, metric.photos) for metric in metrics if "MAE" in metric.name
    }
    assert errors == {"graded": (2.0, 2), "phone": (0.0, 1)}
