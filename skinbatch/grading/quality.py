"""Measure the quality of a face photo and the lightness of its skin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from skinbatch.grading.face import Face, skin_in_crop

# Longer side, in pixels, of the crop that is measured. Sharpness depends on scale, so all photos
# are brought to the same one.
SIDE = 256
# The same for measuring colour: a median of some thousand pixels needs no more.
COLOUR_SIDE = 128
# CIELAB b* below which skin counts as colourless, as in grey or blue-lit photos. The angle would be
# noise or upside down.
MIN_B = 0.5


@dataclass(frozen=True, slots=True)
class Quality:
    """Hold the quality of one face.

    sharpness: variance of the Laplacian of the crop's luma. brightness: mean luma, 0-255.
    ita_degrees: individual typology angle, None if the skin has no colour.
    """

    sharpness: float
    brightness: float
    ita_degrees: float | None


def face_quality(rgb: NDArray[np.uint8], face: Face) -> Quality | None:
    """Return the quality of the face crop, or None without a face.

    rgb: (height, width, 3) uint8, the displayed original.
    """
    if face.crop is None:
        return None
    x1, y1, x2, y2 = face.crop
    crop = rgb[y1:y2, x1:x2]
    luma = _scaled(_averaged(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), SIDE), SIDE, cv2.INTER_AREA)
    small = _scaled(crop, COLOUR_SIDE, cv2.INTER_LINEAR)
    skin = np.flatnonzero(skin_in_crop(face, (small.shape[1], small.shape[0])))
    _, spread = cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_16S))
    mean, _ = cv2.meanStdDev(luma)
    return Quality(
        sharpness=float(spread[0, 0]) ** 2,
        brightness=float(mean[0, 0]),
        ita_degrees=_ita(small.reshape(-1, 3).take(skin, 0).astype(np.uint8, copy=False)),
    )


def _averaged(image: NDArray[Any], side: int) -> NDArray[Any]:
    """Average squares of whole pixels, as many as leave a longer side of at least `side`.

    Averages over fractions of a pixel, which do the rest, are slow.
    """
    height, width = image.shape[:2]
    factor = max(height, width) // side
    if factor < 2 or min(height, width) < factor:
        return image
    whole = image[: height // factor * factor, : width // factor * factor]
    return cv2.resize(whole, (width // factor, height // factor), interpolation=cv2.INTER_AREA)


def _scaled(image: NDArray[Any], side: int, shrinking: int) -> NDArray[Any]:
    """Scale to a longer side of `side` pixels. shrinking: OpenCV's interpolation when it gets
    smaller.
    """
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=shrinking if scale < 1 else cv2.INTER_LINEAR)


def _ita(skin: NDArray[np.uint8]) -> float | None:
    """Return ITA = atan((L* - 50) / b*) in degrees of the median colour. skin: (N, 3) uint8 RGB."""
    if not len(skin):
        return None
    lab = cv2.cvtColor(skin[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    lightness, b = (float(np.median(np.ascontiguousarray(lab[:, channel]))) for channel in (0, 2))
    return math.degrees(math.atan((lightness - 50) / b)) if b >= MIN_B else None
