"""Photos of any size to the square that a network reads. Proportions are kept: resize, then pad or crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

RGB = tuple[float, float, float]
IMAGENET_MEAN: RGB = (0.485, 0.456, 0.406)
IMAGENET_STD: RGB = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """mean, std: per RGB channel, of pixels scaled to [0, 1]."""

    mean: RGB = IMAGENET_MEAN
    std: RGB = IMAGENET_STD

    @property
    def fill(self) -> tuple[int, int, int]:
        """The pixel that is nearest to zero once normalised; padding is made of it."""
        r, g, b = (round(255 * m) for m in self.mean)
        return r, g, b

    def tensor(self, squares: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """squares: (S, S, 3) uint8 RGB each. Returns (N, 3, S, S) float32."""
        batch = np.stack(squares).astype(np.float32)
        batch *= np.array([1 / (255 * std) for std in self.std], np.float32)
        batch -= np.array([mean / std for mean, std in zip(self.mean, self.std, strict=True)], np.float32)
        return torch.from_numpy(batch.transpose(0, 3, 1, 2))


def resize(photo: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """photo: (H, W, 3) uint8. Averages when shrinking, so that fine texture does not turn into noise."""
    if (photo.shape[1], photo.shape[0]) == (width, height):
        return photo
    method = cv2.INTER_AREA if width <= photo.shape[1] and height <= photo.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(photo, (width, height), interpolation=method), np.uint8)


def pad_to_square(
    photo: NDArray[np.uint8], size: int, fill: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The whole photo, scaled to fit, in the upper left of a (size, size, 3) square; and the (h, w) it takes there."""
    height, width = photo.shape[:2]
    scale = size / max(height, width)
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    square = np.empty((size, size, 3), np.uint8)
    square[:] = fill
    square[:h, :w] = resize(photo, w, h)
    return square, (h, w)


def centre_square(photo: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The largest square in the middle of the photo, scaled to (size, size, 3)."""
    height, width = photo.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize(np.ascontiguousarray(photo[top : top + side, left : left + side]), size, size)
