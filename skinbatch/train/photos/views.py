"""Draw training views: photos as another camera, light and file would show them."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from skinbatch.train.recipe_sections import AugmentSection

Pixels = NDArray[np.uint8]
Matrix = NDArray[np.float64]
RGB = tuple[int, int, int]

# Below this scale a photo is averaged down first. Interpolation alone would turn its texture into
# noise.
_SHARP = 0.6


def view_matrix(
    extent: tuple[int, int],
    size: int,
    fit: Literal["crop", "pad"],
    augment: AugmentSection,
    rng: np.random.Generator,
) -> Matrix:
    """Return a (3, 3) matrix from a photo of extent (height, width) to a square of `size` pixels.

    Without augmentation it does the same as scoring: `pad` puts the whole photo into the upper
    left, `crop` takes the middle square.
    """
    height, width = map(float, extent)
    x, y = 0.0, 0.0
    if augment.crop:
        share = float(rng.uniform(augment.crop, 1))
        x, y = float(rng.uniform(0, 1 - share)) * width, float(rng.uniform(0, 1 - share)) * height
        width, height = width * share, height * share
    scale = size / (max(width, height) if fit == "pad" else min(width, height))
    left, top = (
        (0.0, 0.0) if fit == "pad" else ((size - width * scale) / 2, (size - height * scale) / 2)
    )
    as_scored = translation(left, top) @ np.diag((scale, scale, 1.0)) @ translation(-x, -y)
    centre = left + width * scale / 2, top + height * scale / 2
    shift = rng.uniform(-augment.translate, augment.translate, 2) * size
    return (
        translation(centre[0] + shift[0], centre[1] + shift[1])
        @ change(augment, rng)
        @ (translation(-centre[0], -centre[1]) @ as_scored)
    )


def change(augment: AugmentSection, rng: np.random.Generator) -> Matrix:
    """Return a matrix that mirrors, resizes, reshapes, slants and turns around the origin."""
    low, high = np.log(augment.scale)
    zoom = float(np.exp(rng.uniform(low, high)))
    low, high = np.log(augment.stretch)
    stretch = float(np.exp(rng.uniform(low, high) / 2))
    slant = np.tan(np.deg2rad(rng.uniform(-augment.shear, augment.shear)))
    angle = np.deg2rad(rng.uniform(-augment.rotate, augment.rotate))
    mirror = -1.0 if rng.random() < augment.flip else 1.0
    upside = -1.0 if rng.random() < augment.flip_vertical else 1.0
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    sheared = np.array([[1, slant, 0], [0, 1, 0], [0, 0, 1]])
    return turn @ sheared @ np.diag((zoom * stretch * mirror, zoom / stretch * upside, 1.0))


def translation(x: float, y: float) -> Matrix:
    """Return the (3, 3) matrix that moves by x and y."""
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def warp(photo: Pixels, matrix: Matrix, size: int, fill: RGB) -> Pixels:
    """Return the photo through the matrix, (size, size, 3); outside of it is `fill`."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    if scale < _SHARP:
        height, width = photo.shape[:2]
        small = max(1, round(width * scale)), max(1, round(height * scale))
        photo = np.asarray(cv2.resize(photo, small, interpolation=cv2.INTER_AREA), np.uint8)
        matrix = matrix @ np.diag((width / small[0], height / small[1], 1.0))
    out = cv2.warpAffine(
        photo, _centred(matrix), (size, size), flags=cv2.INTER_LINEAR, borderValue=fill
    )
    return np.asarray(out, np.uint8)


def warp_labels(labels: Pixels, matrix: Matrix, size: int) -> Pixels:
    """Return the labels through the matrix, by nearest neighbour; outside is 0.

    labels: of any resolution that the matrix is for.
    """
    out = cv2.warpAffine(
        labels, _centred(matrix), (size, size), flags=cv2.INTER_NEAREST, borderValue=(0,)
    )
    return np.asarray(out, np.uint8)


def _centred(matrix: Matrix) -> Matrix:
    """Return the matrix for OpenCV, which counts from the first pixel's centre, not its corner."""
    return (translation(-0.5, -0.5) @ matrix @ translation(0.5, 0.5))[:2]


def mirrors(matrix: Matrix) -> bool:
    """Return whether left and right have changed places."""
    return bool(np.linalg.det(matrix[:2, :2]) < 0)


def relit(photo: Pixels, augment: AugmentSection, rng: np.random.Generator) -> Pixels:
    """Change light and camera: exposure, contrast, white balance, saturation, brightness."""
    if not (augment.colour or augment.brightness):
        return photo
    amount = augment.colour
    levels = (np.arange(256) / 255.0) ** np.exp(rng.uniform(-0.4, 0.4) * amount)
    levels = (
        (levels - 0.45) * (1 + rng.uniform(-0.3, 0.3) * amount)
        + 0.45
        + rng.uniform(-0.12, 0.12) * amount
    )
    levels = levels * (1 + rng.uniform(-augment.brightness, augment.brightness))
    table = levels[:, None] * (1 + rng.uniform(-0.15, 0.15, 3) * amount)
    lit = cv2.LUT(photo, np.clip(table * 255, 0, 255).round().astype(np.uint8)[None])
    if amount:
        saturation = 0.0 if rng.random() < 0.05 * amount else 1 + rng.uniform(-0.4, 0.4) * amount
        mix = saturation * np.eye(3) + (1 - saturation) * np.tile([0.299, 0.587, 0.114], (3, 1))
        lit = cv2.transform(lit, mix)
    return np.asarray(lit, np.uint8)


def spoilt(photo: Pixels, augment: AugmentSection, rng: np.random.Generator) -> Pixels:
    """Spoil a photo: fewer pixels, blur, sharpening, noise, strong compression or a missing piece.

    Mostly only some of these happen.
    """
    if augment.resolution and rng.random() < augment.resolution:
        photo = _coarser(photo, float(rng.uniform(1.2, 2.4)))
    if rng.random() < augment.blur:
        photo = np.asarray(cv2.GaussianBlur(photo, (0, 0), float(rng.uniform(0.5, 1.6))), np.uint8)
    if augment.sharpen and rng.random() < augment.sharpen:
        amount = float(rng.uniform(0.3, 1.5))
        soft = cv2.GaussianBlur(photo, (0, 0), float(rng.uniform(0.7, 2.0)))
        photo = np.asarray(cv2.addWeighted(photo, 1 + amount, soft, -amount, 0), np.uint8)
    if augment.noise:
        grain = rng.normal(0, rng.uniform(0, augment.noise), photo.shape).astype(np.float32)
        photo = np.clip(photo + grain, 0, 255).astype(np.uint8)
    if rng.random() < augment.jpeg:
        quality: Any = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))]
        photo = np.asarray(
            cv2.imdecode(cv2.imencode(".jpg", photo, quality)[1], cv2.IMREAD_COLOR), np.uint8
        )
    if rng.random() < augment.erase:
        height, width = photo.shape[:2]
        sides = (rng.uniform(0.15, 0.5, 2) * (height, width)).astype(int)
        y, x = (
            int(rng.integers(0, max(1, whole - side)))
            for whole, side in zip((height, width), sides, strict=True)
        )
        photo = photo.copy()
        photo[y : y + sides[0], x : x + sides[1]] = rng.integers(0, 256, 3)
    return photo


def _coarser(photo: Pixels, factor: float) -> Pixels:
    """Shrink a photo by `factor` and enlarge it again, as if it had fewer pixels."""
    height, width = photo.shape[:2]
    small = max(1, round(width / factor)), max(1, round(height / factor))
    shrunk = cv2.resize(photo, small, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
