"""Blend a patch of skin into other skin in several ways.

A detector that learns from all of them does not learn to recognise the seams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Blend = Callable[[Pixels, Pixels, Floats, np.random.Generator], Pixels]
# Levels of the pyramid. A patch is at least 16 pixels wide.
_LEVELS = 3
# Cover from which a pixel belongs to the patch for cv2.seamlessClone, whose borders are hard.
_INSIDE = 0.4
# Pixels that cv2.seamlessClone removes from the rim of a mask. Without them a small lesion would
# lose its border.
_ERODED = 3
# Cover below which a pixel is skin around the lesion, in the patch and in the host.
_RING = 0.1


def blend(host: Pixels, patch: Pixels, cover: Floats, way: str, rng: np.random.Generator) -> Pixels:
    """Return the host with the patch in it.

    Args:
        host: (H, W, 3) uint8, the skin.
        patch: (H, W, 3) uint8, a lesion or plain skin, with skin around it.
        cover: (H, W) float32 0-1, how much of the patch is seen; 0 at the border.
        way: A name in WAYS.
        rng: Draws the strength.
    """
    return WAYS[way](host, patch, cover, rng)


def _feather(host: Pixels, patch: Pixels, cover: Floats, rng: np.random.Generator) -> Pixels:
    """Lay the patch over the host with a soft border and match its skin to the host's colour."""
    matched = patch + (_skin(host, cover) - _skin(patch, cover)) * np.float32(rng.uniform(0.8, 1.0))
    return _mixed(host, matched, cover * np.float32(rng.uniform(0.8, 1.0)))


def _scaled(host: Pixels, patch: Pixels, cover: Floats, rng: np.random.Generator) -> Pixels:
    """Multiply the host by the ratio of the patch to the skin around it."""
    ratio = (patch + np.float32(4)) / (_skin(patch, cover) + np.float32(4))
    strength = np.float32(rng.uniform(0.7, 1.2)) * cover[..., None]
    return _bytes(host * ratio**strength)


def _added(host: Pixels, patch: Pixels, cover: Floats, rng: np.random.Generator) -> Pixels:
    """Add the difference between the patch and the skin around it to the host."""
    strength = np.float32(rng.uniform(0.7, 1.2)) * cover[..., None]
    return _bytes(host + (patch - _skin(patch, cover)) * strength)


def _pyramid(host: Pixels, patch: Pixels, cover: Floats, rng: np.random.Generator) -> Pixels:
    """Blend fine details over short and coarse ones over long distances (Burt and Adelson 1983)."""
    matched = patch + _skin(host, cover) - _skin(patch, cover)
    ground, top, mask = host.astype(np.float32), matched.astype(np.float32), cover
    details = []
    for _ in range(_LEVELS - 1):
        size = (ground.shape[1], ground.shape[0])
        small = [cv2.pyrDown(image) for image in (ground, top, mask)]
        fine_ground, fine_top = (
            image - cv2.pyrUp(less, dstsize=size)
            for image, less in zip((ground, top), small, strict=False)
        )
        details.append(fine_ground + (fine_top - fine_ground) * mask[..., None])
        ground, top, mask = (np.asarray(image, np.float32) for image in small)
    made = ground + (top - ground) * mask[..., None]
    for detail in reversed(details):
        made = cv2.pyrUp(made, dstsize=(detail.shape[1], detail.shape[0])) + detail
    return _mixed(host, np.asarray(made, np.float32), np.minimum(1, 4 * cover))


def _poisson(host: Pixels, patch: Pixels, cover: Floats, rng: np.random.Generator) -> Pixels:
    """Keep the patch's gradients (Pérez 2003)."""
    return _seamless(host, patch, cover, cv2.NORMAL_CLONE)


def _poisson_mixed(host: Pixels, patch: Pixels, cover: Floats, rng: np.random.Generator) -> Pixels:
    """Keep the stronger of the patch's and the host's gradients."""
    return _seamless(host, patch, cover, cv2.MIXED_CLONE)


def _seamless(host: Pixels, patch: Pixels, cover: Floats, flags: int) -> Pixels:
    inside = np.where(cover >= _INSIDE, 255, 0).astype(np.uint8)
    mask = np.asarray(cv2.dilate(inside, np.ones((3, 3), np.uint8), iterations=_ERODED), np.uint8)
    mask[[0, -1]] = 0
    mask[:, [0, -1]] = 0
    x, y, width, height = cv2.boundingRect(mask)
    if min(width, height) < 3:  # The solver needs an interior.
        return host.copy()
    centre = (x + width // 2, y + height // 2)
    return np.asarray(cv2.seamlessClone(patch, host, mask, centre, flags), np.uint8)


WAYS: Mapping[str, Blend] = {
    "feather": _feather,
    "scaled": _scaled,
    "added": _added,
    "pyramid": _pyramid,
    "poisson": _poisson,
    "poisson_mixed": _poisson_mixed,
}


def _skin(pixels: Pixels, cover: Floats) -> Floats:
    """Return the mean colour around the patch, (3,)."""
    return pixels[cover < _RING].mean(0, dtype=np.float64).astype(np.float32)


def _mixed(host: Pixels, top: Floats, cover: Floats) -> Pixels:
    return _bytes(host + (top - host) * cover[..., None])


def _bytes(pixels: NDArray[Any]) -> Pixels:
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)
