"""Change training photos at random: the camera's place, the light and the file."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def affine(
    rng: np.random.Generator,
    extent: tuple[int, int],
    size: int,
    *,
    zoom: tuple[float, float],
    turn: float,
    shift: float,
) -> NDArray[np.float64]:
    """Return a (2, 3) matrix from a photo of extent (height, width) to a size x size square.

    At zoom 1 the photo's long side fills the square. Zoom is log-uniform. Turn, in degrees, and
    shift, in parts of the square, are uniform both ways. Half of the time the photo is mirrored.
    """
    height, width = extent
    scale = size / max(extent) * float(np.exp(rng.uniform(np.log(zoom[0]), np.log(zoom[1]))))
    angle = np.deg2rad(rng.uniform(-turn, turn))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    mirror = rng.choice((-1.0, 1.0))
    matrix = np.array([[mirror * cos, -sin], [mirror * sin, cos]])
    centre = size * (0.5 + rng.uniform(-shift, shift, 2))
    offset = centre - matrix @ np.array([width / 2, height / 2])
    return np.hstack([matrix, offset[:, None]])


def warp(photo: NDArray[np.uint8], matrix: NDArray[np.float64], size: int, fill: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the photo through the matrix, bilinear; outside of it is `fill`."""
    out = cv2.warpAffine(photo, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=fill)
    return np.asarray(out, np.uint8)


def warp_labels(labels: NDArray[np.uint8], matrix: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Return the labels through the matrix, by nearest neighbour; outside is 0."""
    out = cv2.warpAffine(labels, matrix, (size, size), flags=cv2.INTER_NEAREST, borderValue=(0,))
    return np.asarray(out, np.uint8)


def recolour(photo: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change exposure, contrast, white balance and saturation; now and then make the photo grey."""
    x = photo.astype(np.float32) / 255
    x = x ** np.float32(np.exp(rng.uniform(-0.4, 0.4)))
    x = (x - 0.45) * np.float32(rng.uniform(0.7, 1.3)) + 0.45 + np.float32(rng.uniform(-0.12, 0.12))
    x = x * rng.uniform(0.85, 1.15, 3).astype(np.float32)
    grey = x @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = np.float32(0 if rng.random() < 0.05 else rng.uniform(0.6, 1.4))
    x = grey[..., None] + saturation * (x - grey[..., None])
    return (np.clip(x, 0, 1) * 255).astype(np.uint8)


def degrade(photo: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur a photo, or compress it strongly as JPEG, or neither."""
    kind = rng.random()
    if kind < 0.15:
        return np.asarray(cv2.GaussianBlur(photo, (0, 0), float(rng.uniform(0.5, 1.6))), np.uint8)
    if kind < 0.4:
        quality: Any = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))]
        return np.asarray(cv2.imdecode(cv2.imencode(".jpg", photo, quality)[1], cv2.IMREAD_COLOR), np.uint8)
    return photo


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
        centre, axes = rng.integers(0, size, 2).tolist(), rng.integers(size // 16, size // 2, 2).tolist()
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
    return (np.array([215, 165, 140]) * rng.uniform(0.5, 1.15) + rng.normal(0, 20, 3)).astype(np.float32)
