"""Draw training inputs: a photo from another place, at another scale, in another light."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from skinbatch.train.photos.views import change, relit, spoilt
from skinbatch.train.recipe_sections import AugmentSection

Pixels = NDArray[np.uint8]
Boxes = NDArray[np.float32]
Labels = NDArray[np.int64]
Points = NDArray[np.float32]
Size = tuple[int, int]
# Number of places that are tried for a crop without a lesion.
_TRIES = 40
# Number of pixels of an input for one pixel of its skin mask, along a side.
_COARSER = 4

# Where the four photos of a mosaic meet, in shares of its sides.
SPLIT = (0.3, 0.7)


@dataclass(frozen=True, slots=True)
class Sample:
    """Hold a photo or a part of one.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        boxes: (N, 4) float32 in these pixels, x1 y1 x2 y2.
        labels: (N,) int64.
        skin: (h, w) bool, coarser than the pixels, where the photo shows skin; None if nobody
            looked.
    """

    pixels: Pixels
    boxes: Boxes
    labels: Labels
    skin: NDArray[np.bool_] | None = None

    def skin_points(self) -> Points:
        """Return (N, 2) places x y on the skin, pixels."""
        if self.skin is None:
            return np.zeros((0, 2), np.float32)
        rows, columns = np.nonzero(self.skin)
        return ((np.stack((columns, rows), axis=1) + 0.5) * self._skin_scale).astype(np.float32)

    def skin_share(
        self, centre: NDArray[np.floating[Any]], halves: NDArray[np.floating[Any]]
    ) -> float:
        """Return the share of a box around `centre` that is skin, 0-1."""
        if self.skin is None:
            return 0.0
        low = np.maximum(0, np.floor((centre - halves) / self._skin_scale)).astype(int)
        high = np.maximum(low + 1, np.ceil((centre + halves) / self._skin_scale).astype(int))
        inside = self.skin[low[1] : high[1], low[0] : high[0]]
        return float(inside.mean()) if inside.size else 0.0

    @property
    def _skin_scale(self) -> NDArray[np.float64]:
        assert self.skin is not None
        height, width = self.skin.shape
        return np.array([self.pixels.shape[1] / width, self.pixels.shape[0] / height])


Cloning = Callable[[Sample, np.random.Generator], Sample]


@dataclass(frozen=True, slots=True)
class Changes:
    """Describe how training inputs are made from photos at network scale.

    Attributes:
        side: of the square input, pixels.
        whole: show the whole photo at scale 1. Otherwise show a part of it, placed on a lesion in
            `augment.on_lesion` of the cases.
        visible: share of a box that must be inside for it to stay.
        fill: RGB of the area outside the photo.
    """

    side: int
    augment: AugmentSection
    whole: bool = True
    visible: float = 0.35
    fill: tuple[int, int, int] = (114, 114, 114)


def draw(
    photo: Sample,
    others: Sequence[Sample],
    rng: np.random.Generator,
    changes: Changes,
    cloning: Cloning | None = None,
) -> Sample:
    """Return a training input of `photo`, or a mosaic of it and three `others` at full scale.

    cloning: adds lesions to the input.
    """
    if others:
        seen = _mosaic((photo, *others), rng, changes)
    else:
        seen = _seen(photo, rng, changes, (changes.side, changes.side), whole=changes.whole)
        if cloning is not None:
            seen = cloning(seen, rng)
    pixels = spoilt(
        relit(np.ascontiguousarray(seen.pixels), changes.augment, rng), changes.augment, rng
    )
    return Sample(pixels, seen.boxes, seen.labels)


def _mosaic(photos: Sequence[Sample], rng: np.random.Generator, changes: Changes) -> Sample:
    """Return parts of four photos at full scale.

    Lesions keep their size, because they are only a few pixels wide.
    """
    side = changes.side
    x, y = (round(side * rng.uniform(*SPLIT)) for _ in range(2))
    pixels = np.empty((side, side, 3), np.uint8)
    boxes, labels = [], []
    places = ((0, 0, x, y), (x, 0, side, y), (0, y, x, side), (x, y, side, side))
    for photo, (x1, y1, x2, y2) in zip(photos, places, strict=True):
        part = _seen(photo, rng, changes, (x2 - x1, y2 - y1), whole=False)
        pixels[y1:y2, x1:x2] = part.pixels
        boxes.append(part.boxes + np.array([x1, y1, x1, y1], np.float32))
        labels.append(part.labels)
    return Sample(pixels, np.concatenate(boxes), np.concatenate(labels))


def _seen(
    photo: Sample, rng: np.random.Generator, changes: Changes, size: Size, *, whole: bool
) -> Sample:
    """Return a random view. size: its width and height."""
    linear = change(changes.augment, rng)[:2, :2]
    canvas = np.array(size, float)
    extent = np.abs(np.linalg.inv(linear)) @ canvas
    photo_size = np.array(photo.pixels.shape[1::-1], float)
    at = canvas / 2
    if whole:
        looked_at = photo_size / 2
        at = at + changes.augment.translate * rng.uniform(-1, 1, 2) * canvas
    else:
        if len(photo.boxes) and rng.random() < changes.augment.on_lesion:
            box = photo.boxes[rng.integers(len(photo.boxes))]
            looked_at = (box[:2] + box[2:]) / 2 + rng.uniform(-0.4, 0.4, 2) * extent
        elif photo.skin is not None or (changes.augment.off_lesion and len(photo.boxes)):
            looked_at = _off_lesions(photo, rng, changes.augment.off_lesion, extent, photo_size)
        else:
            looked_at = rng.uniform(0, 1, 2) * photo_size
        looked_at = _within(looked_at, extent, photo_size)
    shift = at - linear @ looked_at
    # OpenCV counts from the centre of the first pixel, boxes from its corner.
    matrix = np.column_stack((linear, shift + linear @ np.array([0.5, 0.5]) - 0.5))
    pixels = cv2.warpAffine(
        photo.pixels, matrix, size, flags=cv2.INTER_LINEAR, borderValue=changes.fill
    )
    boxes, kept = moved(photo.boxes, linear, shift, size, changes.visible)
    skin = None if photo.skin is None else _seen_skin(photo, linear, shift, size)
    return Sample(np.asarray(pixels, np.uint8), boxes, photo.labels[kept], skin)


def _seen_skin(
    photo: Sample, linear: NDArray[np.float64], shift: NDArray[np.float64], size: Size
) -> NDArray[np.bool_]:
    """Return the skin in the view, (height, width) / _COARSER, bool."""
    assert photo.skin is not None
    height, width = photo.skin.shape
    scale = np.array([photo.pixels.shape[1] / width, photo.pixels.shape[0] / height])
    coarse = linear * scale / _COARSER
    matrix = np.column_stack((coarse, shift / _COARSER + coarse @ np.array([0.5, 0.5]) - 0.5))
    small = max(1, size[0] // _COARSER), max(1, size[1] // _COARSER)
    mask = cv2.warpAffine(photo.skin.astype(np.uint8), matrix, small, flags=cv2.INTER_NEAREST)
    return np.asarray(mask) > 0


def _within(
    looked_at: NDArray[np.float64], extent: NDArray[np.float64], photo_size: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the centre moved so that as much of `extent` around it as possible is in the photo."""
    ends = np.stack((extent / 2, photo_size - extent / 2))
    return np.clip(looked_at, ends.min(0), ends.max(0))


def _off_lesions(
    photo: Sample,
    rng: np.random.Generator,
    off_lesion: float,
    extent: NDArray[np.float64],
    photo_size: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return a centre on the skin.

    In `off_lesion` of the cases, as few lesions as possible are around it.
    """
    points = photo.skin_points()
    if not len(points):
        points = rng.uniform(0, 1, (_TRIES, 2)).astype(np.float32) * photo_size.astype(np.float32)
    apart = len(photo.boxes) and rng.random() < off_lesion
    places = (
        points[rng.integers(0, len(points), _TRIES if apart else 1)]
        + rng.uniform(-0.3, 0.3, 2) * extent
    )
    places = _within(places, extent, photo_size)
    if not apart:
        return places[0]
    low, high = places - extent / 2, places + extent / 2
    overlaps = (photo.boxes[None, :, :2] < high[:, None]) & (
        photo.boxes[None, :, 2:] > low[:, None]
    )
    return places[overlaps.all(2).sum(1).argmin()]


def moved(
    boxes: Boxes,
    linear: NDArray[np.float64],
    shift: NDArray[np.float64],
    size: Size,
    visible: float,
) -> tuple[Boxes, NDArray[np.intp]]:
    """Return boxes through x -> linear @ x + shift, and the indices of those that stayed.

    boxes: (N, 4). The result is clipped to `size`, width and height.

    A lesion is treated as the ellipse in its box: turned by 45 degrees, the box around a square
    box's corners would be twice as large as the lesion.
    """
    corners = boxes.reshape(-1, 2, 2).astype(np.float64)
    centres = corners.mean(1) @ linear.T + shift
    halves = np.sqrt((corners[:, 1] - corners[:, 0]) ** 2 / 4 @ (linear**2).T)
    whole = np.stack((centres - halves, centres + halves), axis=1)
    inside = np.clip(whole, 0, np.array(size, float))
    areas, left = (np.prod(b[:, 1] - b[:, 0], axis=1) for b in (whole, inside))
    kept = np.flatnonzero((left >= visible * areas) & (left > 0))
    return inside[kept].reshape(-1, 4).astype(np.float32), kept
