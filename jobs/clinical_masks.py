"""Draw the masks of clinical photos for clinical_photos.py: the parts that are surely skin.

Masks are drawn by machine: from the colours of skin, learned from the masks of CelebAMask-HQ and
from photos of nothing but skin, and by the starter pack's segmenter if a face is visible. Where
these disagree or are unsure, and on watermarks, the mask is unsure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier

from skinbatch.annotations.masks import BODY, NOSE, SKIN, UNSURE
from skinbatch.config import ModelSettings
from skinbatch.models.build import build_segmenter
from skinbatch.models.pack import load_pack
from skinbatch.models.protocols import Segmenter

Pixels = NDArray[np.uint8]
Shares = NDArray[np.float32]

BACKGROUND = 0
# The longer side of photos while masks are made, in pixels.
SIDE = 240
# A pixel is surely skin if its colour's chance of skin is over the first, and surely not skin if it
# is under the second.
SURELY, SURELY_NOT = 0.8, 0.06
# The largest lesion, as a share of the photo. Lesions are holes in the skin.
MOST_HOLE = 0.12
# The publishers' marks by origin: x1 y1 x2 y2 in shares of the photo.
MARKS = {"dermnet": (0.0, 0.74, 0.42, 1.0), "atlas": (0.0, 0.86, 0.16, 1.0)}
# Photos and pixels of each that the colours of skin are learned from.
_PHOTOS = 400
_PIXELS = 250
_SEED = 2019
# Widths of the surroundings whose colours a pixel is judged by.
_BLURS = (1.0, 4.0, 12.0)
_FEATURES = 3 * len(_BLURS) + 1


class Masks:
    """Draw masks.

    Args:
        data: folder of celebamask.
        skin: photos that show nothing but skin.
    """

    def __init__(self, data: Path, skin: Sequence[Path]) -> None:
        pack = load_pack("starter")
        weights = pack.weights_file("segmenter")
        self._segmenter: Segmenter = build_segmenter(
            pack.segmenter, weights, "cpu", ModelSettings()
        )
        self._colours = _skin_colours(data, skin)

    def of(self, path: Path, shows: str, origin: str) -> Pixels:
        """Return the (height, width) mask of a photo. shows, origin: see Clinical."""
        rgb = _read(path)
        height, width = rgb.shape[:2]
        if shows == "skin":
            mask: Pixels = np.full((height, width), SKIN, np.uint8)
        else:
            small = _shrunk(rgb)
            chance = self._colours.predict_proba(_features(small).reshape(-1, _FEATURES))[:, 1]
            chance = chance.reshape(small.shape[:2]).astype(np.float32)
            chance = np.asarray(cv2.GaussianBlur(chance, (0, 0), 1.5))
            face = shows == "face"
            small_mask = self._with_face(rgb, chance) if face else with_body(chance, shows)
            mask = np.asarray(
                cv2.resize(small_mask, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8
            )

        mask[_plain(rgb) & (mask != BACKGROUND)] = UNSURE
        if origin in MARKS:
            x1, y1, x2, y2 = MARKS[origin]
            mask[round(y1 * height) : round(y2 * height), round(x1 * width) : round(x2 * width)] = (
                UNSURE
            )
        return mask

    def _with_face(self, rgb: Pixels, chance: Shares) -> Pixels:
        """Return skin where both methods agree, or by colour if the segmenter sees no face."""
        seen = self._segmenter([rgb])[0]
        names = self._segmenter.classes
        size = chance.shape[1], chance.shape[0]
        parts = {name: _grown(seen == names.index(name), size) for name in ("skin", "nose")}
        affectable = parts["skin"] | parts["nose"]
        blind = affectable.mean() < 0.5 * (chance > SURELY).mean()

        mask = np.full(chance.shape, UNSURE, np.uint8)
        mask[(chance < SURELY_NOT) & ~affectable] = BACKGROUND
        mask[(chance > SURELY) & (affectable | blind)] = SKIN
        mask[affectable & (chance > 0.5)] = SKIN
        mask[parts["nose"] & (chance > 0.5)] = NOSE
        rim = cv2.dilate(parts["nose"].astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        mask[rim & ~parts["nose"]] = UNSURE
        holes = _holes(np.isin(mask, (SKIN, NOSE)), MOST_HOLE)
        mask[holes & (mask == BACKGROUND)] = UNSURE  # eyes and lips, or lesions
        return without_edges(mask)


def with_body(chance: Shares, shows: str) -> Pixels:
    """Return skin by its colour alone. Holes in it are lesions and count as skin."""
    kind = BODY if shows == "body" else SKIN
    mask = np.full(chance.shape, UNSURE, np.uint8)
    mask[chance < SURELY_NOT] = BACKGROUND
    mask[chance > SURELY] = kind
    mask[_holes(mask == kind, MOST_HOLE)] = kind
    return without_edges(mask)


def _holes(region: NDArray[np.bool_], most: float) -> NDArray[np.bool_]:
    """Return the holes of a region, each at most this share of the photo."""
    closed = cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(
        (closed == 0).astype(np.uint8), connectivity=4
    )
    height, width = region.shape
    left, top, right, bottom = (
        stats[:, cv2.CC_STAT_LEFT],
        stats[:, cv2.CC_STAT_TOP],
        stats[:, cv2.CC_STAT_LEFT] + stats[:, cv2.CC_STAT_WIDTH],
        stats[:, cv2.CC_STAT_TOP] + stats[:, cv2.CC_STAT_HEIGHT],
    )
    inside = (left > 0) & (top > 0) & (right < width) & (bottom < height)
    small = stats[:, cv2.CC_STAT_AREA] <= most * region.size
    chosen = inside & small & (np.arange(count) > 0)
    return np.asarray(chosen[numbers] | ((closed > 0) & ~region), np.bool_)


def _plain(rgb: Pixels) -> NDArray[np.bool_]:
    """Return where a photo was padded with one colour."""
    kernel = np.ones((15, 15), np.uint8)
    darkest, lightest = cv2.erode(rgb, kernel), cv2.dilate(rgb, kernel)
    flat = (lightest.astype(np.int16) - darkest).max(axis=2) <= 2
    return np.asarray(cv2.dilate(flat.astype(np.uint8), kernel) > 0, np.bool_)


def without_edges(mask: Pixels) -> Pixels:
    """Mark a few pixels between two classes as unsure."""
    inner = cv2.erode(mask, np.ones((5, 5), np.uint8))
    outer = cv2.dilate(mask, np.ones((5, 5), np.uint8))
    return np.where(inner == outer, mask, UNSURE).astype(np.uint8)


def _grown(region: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(
        cv2.resize(region.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0, np.bool_
    )


def _skin_colours(data: Path, skin: Sequence[Path]) -> HistGradientBoostingClassifier:
    """Train a model that recognises skin by a pixel's colour and its neighbours' colours."""
    rng = np.random.default_rng(_SEED)
    features, labels = [], []
    faces = sorted((data / "celebamask" / "images").iterdir())
    for path in (faces[n] for n in np.linspace(0, len(faces) - 1, _PHOTOS).astype(int)):
        small = _shrunk(_read(path))
        with Image.open(data / "celebamask" / "masks" / f"{path.stem}.png") as mask:
            numbers = np.asarray(mask, np.uint8)
        size = small.shape[1], small.shape[0]
        numbers = np.asarray(cv2.resize(numbers, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        # Eyes, brows, lips and ears count as neither.
        known = np.isin(numbers, (0, 1, 2, 13, 14, 17, 18))
        places = rng.choice(np.flatnonzero(known), _PIXELS, replace=False)
        features.append(_features(small).reshape(-1, _FEATURES)[places])
        labels.append(np.isin(numbers.ravel()[places], (1, 2, 17)))

    for path in (skin[n] for n in np.linspace(0, len(skin) - 1, _PHOTOS).astype(int)):
        small = _shrunk(_read(path))
        height, width = small.shape[:2]
        above_marks = round(MARKS["dermnet"][1] * height) * width
        places = rng.choice(above_marks, _PIXELS // 2, replace=False)
        features.append(_features(small).reshape(-1, _FEATURES)[places])
        labels.append(np.ones(len(places), np.bool_))

    model = HistGradientBoostingClassifier(max_iter=150, learning_rate=0.1, random_state=_SEED)
    return model.fit(np.concatenate(features), np.concatenate(labels))


def _features(rgb: Pixels) -> Shares:
    """Return (h, w, _FEATURES): the colours of a pixel and its surroundings, and the roughness."""
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    blurred = [np.asarray(cv2.GaussianBlur(lab, (0, 0), sigma)) for sigma in _BLURS]
    light = lab[..., 0]
    variance = cv2.GaussianBlur(light**2, (0, 0), 3) - cv2.GaussianBlur(light, (0, 0), 3) ** 2
    return np.concatenate([*blurred, np.sqrt(np.maximum(variance, 0))[..., None]], axis=2).astype(
        np.float32
    )


def _shrunk(rgb: Pixels) -> Pixels:
    height, width = rgb.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _read(path: Path) -> Pixels:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise SystemExit(f"{path}: cannot be decoded")
    return np.ascontiguousarray(bgr[..., ::-1])
