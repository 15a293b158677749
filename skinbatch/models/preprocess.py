"""Turn photos of any size into the square that a network reads.

Proportions are kept: a photo is resized, then padded or cropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

RGB = tuple[float, float, float]
IMAGENET_MEAN: RGB = (0.485, 0.456, 0.406)
IMAGENET_STD: RGB = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Scale pixels for a network. mean, std: per RGB channel, of pixels scaled to [0, 1]."""

    mean: RGB = IMAGENET_MEAN
    std: RGB = IMAGENET_STD

    @property
    def fill(self) -> tuple[int, int, int]:
        """Return the pixel that is nearest to zero after normalisation. It is used for padding."""
        r, g, b = (round(255 * m) for m in self.mean)
        return r, g, b

    def tensor(self, squares: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Return (N, 3, S, S) float32. squares: (S, S, 3) uint8 RGB each."""
        table = _table_of(self)
        batch = np.empty((len(squares), *squares[0].shape), np.float32)
        for row, square in zip(batch, squares, strict=True):
            look_up(square, table, row)
        return torch.from_numpy(batch.transpose(0, 3, 1, 2))

    def scaled(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (..., 3) float32. pixels: (..., 3) uint8 RGB."""
        values = pixels.astype(np.float32)
        values *= np.array([1 / (255 * std) for std in self.std], np.float32)
        values -= np.array(
            [mean / std for mean, std in zip(self.mean, self.std, strict=True)], np.float32
        )
        return values


def channel_table(
    scale: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Return (1, 256, 3), what `scale` makes of each value of each channel, for `look_up`.

    A photo has far more pixels than a table has entries, so a look-up takes a ninth of the time of
    the arithmetic and gives the same numbers.

    Args:
        scale: computes (256, 1, 3) float32 from uint8 of that shape, each channel by itself.
    """
    values = np.arange(256, dtype=np.uint8)[:, None, None]
    return np.ascontiguousarray(scale(np.tile(values, (1, 1, 3))).reshape(1, 256, 3))


def look_up(
    pixels: NDArray[np.uint8], table: NDArray[np.float32], place: NDArray[np.float32]
) -> None:
    """Write the table's entry for every pixel into `place`. pixels, place: (H, W, 3)."""
    written = cv2.LUT(np.ascontiguousarray(pixels), table, dst=place)
    assert written is place, "OpenCV wrote into an array of its own"


@lru_cache(maxsize=64)
def _table_of(normalisation: Normalisation) -> NDArray[np.float32]:
    return channel_table(normalisation.scaled)


def resize(photo: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize a photo, (H, W, 3) uint8.

    Shrinking averages, so that fine texture does not turn into noise.
    """
    if (photo.shape[1], photo.shape[0]) == (width, height):
        return photo
    method = (
        cv2.INTER_AREA if width <= photo.shape[1] and height <= photo.shape[0] else cv2.INTER_LINEAR
    )
    return np.asarray(cv2.resize(photo, (width, height), interpolation=method), np.uint8)


def pad_to_square(
    photo: NDArray[np.uint8], size: int, fill: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Scale the whole photo to fit into the upper left of a (size, size, 3) square.

    Returns the square and the (h, w) that the photo takes in it.
    """
    h, w = fitted(photo.shape[0], photo.shape[1], size)
    square = np.empty((size, size, 3), np.uint8)
    square[:] = fill
    square[:h, :w] = resize(photo, w, h)
    return square, (h, w)


def fitted(height: int, width: int, size: int) -> tuple[int, int]:
    """Return the (h, w) that a photo takes in a square of `size` pixels."""
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def centre_square(photo: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return the largest square in the middle of the photo, scaled to (size, size, 3)."""
    height, width = photo.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize(np.ascontiguousarray(photo[top : top + side, left : left + side]), size, size)
