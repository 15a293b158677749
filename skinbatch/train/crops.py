"""Training crops: a random place, scale and stretch of a photo, mirrored or not, in other light."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Boxes = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CropRecipe:
    """side: of the square crop in pixels. zoom, stretch: largest factors of scale and of width against height, both
    ways. on_lesion: share of crops placed on a lesion. negatives: share of crops from photos without lesions.
    visible: share of a box that must be inside for it to stay.
    """

    side: int = 256
    zoom: float = 1.3
    stretch: float = 1.4
    on_lesion: float = 0.75
    negatives: float = 0.08
    visible: float = 0.35
    light: float = 0.2


def random_crop(pixels: Pixels, boxes: Boxes, rng: np.random.Generator, recipe: CropRecipe) -> tuple[Pixels, Boxes]:
    """(side, side, 3) and the boxes left in it, (M, 4), in its pixels. What lies off the photo is grey."""
    zoom = recipe.zoom ** rng.uniform(-1, 1)
    stretch = recipe.stretch ** rng.uniform(-0.5, 0.5)
    scale = np.array([zoom * stretch, zoom / stretch])
    extent = recipe.side / scale
    size = np.array(pixels.shape[1::-1], float)
    if len(boxes) and rng.random() < recipe.on_lesion:
        box = boxes[rng.integers(len(boxes))]
        centre = (box[:2] + box[2:]) / 2 + rng.uniform(-0.4, 0.4, 2) * extent
    else:
        centre = rng.uniform(0, 1, 2) * size
    spare = size - extent
    corner = np.clip(centre - extent / 2, np.minimum(spare, 0) / 2, np.maximum(spare, spare / 2))
    # OpenCV counts from the centre of the first pixel, boxes from its corner.
    shift = (0.5 - corner) * scale - 0.5
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    side = (recipe.side, recipe.side)
    crop = cv2.warpAffine(pixels, matrix, side, flags=cv2.INTER_LINEAR, borderValue=(114, 114, 114))
    moved = (boxes.reshape(-1, 2, 2) - corner) * scale
    inside = np.clip(moved, 0, recipe.side)
    areas, left = (np.prod(b[:, 1] - b[:, 0], axis=1) for b in (moved, inside))
    kept = inside[left >= recipe.visible * areas].reshape(-1, 4).astype(np.float32)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
        kept[:, [0, 2]] = recipe.side - kept[:, [2, 0]]
    return relight(np.asarray(crop, np.uint8), rng, recipe.light), kept


def relight(crop: Pixels, rng: np.random.Generator, amount: float) -> Pixels:
    """Random brightness, contrast, colour cast and gamma; now and then a slight blur, as of a poor lens."""
    levels = np.arange(256) / 255.0
    levels = np.clip(levels ** (1 + rng.uniform(-amount, amount)), 0, 1)
    levels = (levels - 0.5) * (1 + rng.uniform(-amount, amount)) + 0.5 + rng.uniform(-amount, amount) / 2
    table = levels[:, None] * (1 + rng.uniform(-amount, amount, 3) / 2)
    lit = cv2.LUT(np.ascontiguousarray(crop), np.clip(table * 255, 0, 255).round().astype(np.uint8)[None])
    if rng.random() < 0.1:
        lit = cv2.GaussianBlur(lit, (3, 3), rng.uniform(0.4, 0.9))
    return np.asarray(lit, np.uint8)


def epoch_crops(
    photos: Sequence[tuple[Pixels, Boxes]], clear: Sequence[Pixels], recipe: CropRecipe, seed: int, epoch: int
) -> Iterator[tuple[Pixels, Boxes]]:
    """One crop of each photo in random order, with crops of `clear` photos (no lesions) between them."""
    rng = np.random.default_rng([seed, epoch])
    none = np.zeros((0, 4), np.float32)
    for index in rng.permutation(len(photos)):
        pixels, boxes = photos[index]
        if len(clear) and rng.random() < recipe.negatives:
            yield random_crop(clear[int(rng.integers(len(clear)))], none, rng, recipe)
        yield random_crop(pixels, boxes, rng, recipe)
