"""Measure annotated boxes at the scale of a detector's input."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.errors import UsageError


@dataclass(frozen=True, slots=True)
class UsableBoxes:
    """Hold the sizes of the boxes that can be used.

    Attributes:
        photos: number of photos whose boxes were annotated.
        wh: (N, 2) float64, widths and heights at the network's scale.
        left_out: reason -> the names of the photos, one entry a box.
    """

    photos: int
    wh: NDArray[np.float64]
    left_out: Mapping[str, tuple[str, ...]]


def network_sizes(photos: Iterable[AnnotatedPhoto], size: int, max_upscale: float) -> UsableBoxes:
    """Return the widths and heights of annotated boxes at a detector's scale.

    The detector scales a photo's long side to `size`, and enlarges smaller photos by at most
    `max_upscale`. Boxes that reach over the photo's edge are clipped to it. Photos without
    annotated boxes are skipped.

    Raises:
        UsageError: the size of a photo with boxes is not known.
    """
    left_out: dict[str, list[str]] = {"empty": [], "outside the photo": [], "not a number": []}
    kept = []
    seen = 0
    for photo in photos:
        if photo.boxes is None:
            continue
        seen += 1
        if len(photo.boxes) and not (photo.width and photo.height):
            raise UsageError(
                f"{photo.annotation}: gives no size, and {photo.name} is not beside it; put the photo there, "
                "or name its folder with --photos"
            )
        photo_width, photo_height = photo.width or 1, photo.height or 1
        scale = min(size / max(photo_width, photo_height), max_upscale)
        name = (
            str(photo.annotation)
            if photo.annotation.stem in photo.name
            else f"{photo.annotation}: {photo.name}"
        )
        for x1, y1, x2, y2 in photo.boxes.tolist():
            if not all(math.isfinite(v) for v in (x1, y1, x2, y2)):
                left_out["not a number"].append(name)
            elif x2 <= x1 or y2 <= y1:
                left_out["empty"].append(name)
            elif x2 <= 0 or y2 <= 0 or x1 >= photo_width or y1 >= photo_height:
                left_out["outside the photo"].append(name)
            else:
                width, height = (
                    min(x2, photo_width) - max(x1, 0.0),
                    min(y2, photo_height) - max(y1, 0.0),
                )
                kept.append((width * scale, height * scale))
    wh = np.array(kept, np.float64).reshape(-1, 2)
    return UsableBoxes(
        seen, wh, {reason: tuple(names) for reason, names in left_out.items() if names}
    )
