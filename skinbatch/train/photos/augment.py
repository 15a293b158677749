"""Paint training photos: spots on the skin, and other backgrounds."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def blemish(
    photo: NDArray[np.uint8], region: NDArray[np.bool_], rng: np.random.Generator, most: int
) -> NDArray[np.uint8]:
    """Put red and brown spots on the region, so that inflamed skin still counts as skin."""
    ys, xs = np.nonzero(region)
    if len(ys) == 0:
        return photo
    paint = photo.copy()
    cover = np.zeros(photo.shape[:2], np.float32)
    for at in rng.integers(0, len(ys), int(rng.integers(0, most + 1))):
        centre = (int(xs[at]), int(ys[at]))
        radius = int(rng.integers(1, 7))
        dark = rng.uniform(0.4, 0.9)
        old = photo[ys[at], xs[at]].astype(np.float32)
        colour = tuple(float(v) for v in old * (min(1.0, dark + 0.25), dark * 0.75, dark * 0.75))
        cv2.circle(paint, centre, radius, colour, -1)
        cv2.circle(cover, centre, radius, (float(rng.uniform(0.3, 0.9)),), -1)
    cover = np.asarray(cv2.GaussianBlur(cover, (0, 0), 1.2), np.float32)[..., None]
    return (photo * (1 - cover) + paint * cover).astype(np.uint8)


def clutter(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Return (size, size, 3): patches and shapes of random colours with soft or hard borders.

    Many are coloured like skin. They stand for walls, clothes and things.
    """
    cells = int(rng.integers(1, 9))
    colours = np.stack([_colour(rng) for _ in range(cells * cells)]).reshape(cells, cells, 3)
    method = rng.choice((cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC))
    scene: NDArray[np.float32] = np.asarray(
        cv2.resize(colours, (size, size), interpolation=int(method)), np.float32
    ).reshape(size, size, 3)
    for _ in range(int(rng.integers(0, 7))):
        centre, axes = (
            rng.integers(0, size, 2).tolist(),
            rng.integers(size // 16, size // 2, 2).tolist(),
        )
        colour = [float(value) for value in _colour(rng)]
        if rng.random() < 0.5:
            cv2.ellipse(scene, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
        else:
            corners = cv2.boxPoints((centre, axes, float(rng.uniform(0, 180)))).astype(np.int32)
            cv2.fillConvexPoly(scene, corners, colour)
    scene = np.asarray(cv2.GaussianBlur(scene, (0, 0), float(rng.uniform(0.3, 3))), np.float32)
    noise = rng.normal(0, rng.uniform(0, 12), (size, size, 1))
    return np.clip(scene + noise, 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator) -> NDArray[np.float32]:
    if rng.random() < 0.5:
        return rng.uniform(0, 255, 3).astype(np.float32)
    return (np.array([215, 165, 140]) * rng.uniform(0.5, 1.15) + rng.normal(0, 20, 3)).astype(
        np.float32
    )
