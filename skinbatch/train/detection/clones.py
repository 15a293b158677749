"""Cut lesions from annotated photos and clone them, like pieces of plain skin, onto other skin.

If one set of photos has all the lesions and another all the clear faces, a detector can learn to
recognise the set instead of the lesions. Cloned lesions put both on every skin. Cloned plain skin
keeps the seam from becoming the next clue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from skinbatch.train.detection.blends import WAYS, Floats, blend
from skinbatch.train.detection.crops import Boxes, Pixels, Points, Sample
from skinbatch.train.detection.scaled_photos import ScaledPhotos
from skinbatch.train.recipe_sections import CloneSection

Vector = NDArray[np.floating[Any]]

# Factors of a lesion's own size between which it is shown. Enlarged further, it would be blurred.
_LEAST, _MOST = 0.35, 1.6
# Lesion radii from its centre to where the patch has faded out, at most, and to the patch's end.
_FADED, _REACH = 1.75, 1.95
# Grey levels by which a lesion must differ from the skin around it. Fainter ones teach nothing.
_VISIBLE = 5.0
# Grey levels by which a lesion must change the skin that it is cloned onto. Nobody would see less.
_SEEN = 4.0
# Share of a patch, and of the place for it, that must be skin, not eyes or hair.
_SKIN = 0.9
# Number of patches that are tried for a lesion, and of places that are tried for a patch.
_ATTEMPTS = 4
_TRIES = 12
# Number of lesions of which the clearest is cloned.
_COMPARED = 2
# Share of the crops whose plain patches are of a clear photo; in the others they are of the
# lesions' photo.
_CLEAR_DONOR = 0.25


@dataclass(frozen=True, slots=True)
class Patch:
    """Hold a piece of skin at its new size and angle.

    Attributes:
        pixels: (S, S, 3) uint8, S even.
        cover: (S, S) float32 0-1, how much of it is seen.
        halves: (2,) half width and height of the lesion, which is in the middle.
    """

    pixels: Pixels
    cover: Floats
    halves: NDArray[np.float64]

    @property
    def contrast(self) -> float:
        """Return the grey levels by which the middle differs from the skin around it."""
        middle, around = self.pixels[self.cover > 0.9], self.pixels[self.cover < 0.1]
        if not len(middle) or not len(around):
            return 0.0
        return float(np.abs(middle.mean(0) - around.mean(0)).mean())


@dataclass(frozen=True, slots=True)
class Cloned:
    """Hold a sample after cloning.

    Attributes:
        sample: with the boxes of its lesions.
        lesions: (M, 4) float32, the new boxes.
        plain: (N, 4) float32, places of the plain patches.
    """

    sample: Sample
    lesions: Boxes
    plain: Boxes


class Cloner:
    """Clone patches of some photos onto others.

    The cloner keeps no state: its output depends on the generator alone.

    faint: faint lesions are cloned too. A detector is tried with those, and taught with clear ones.
    """

    def __init__(
        self,
        annotated: ScaledPhotos,
        clear: ScaledPhotos,
        section: CloneSection,
        *,
        faint: bool = False,
    ) -> None:
        self._annotated, self._clear, self._section, self._faint = annotated, clear, section, faint
        self._donors = [n for n, photo in enumerate(annotated.photos) if len(_alone(photo.boxes))]

    def on_clear(self, seen: Sample, rng: np.random.Generator) -> Sample:
        """Clone onto a crop of a clear photo; see crops.draw."""
        return self._some(seen, rng, self._section.on_clear)

    def on_annotated(self, seen: Sample, rng: np.random.Generator) -> Sample:
        """Clone onto a crop of an annotated photo; see crops.draw."""
        return self._some(seen, rng, self._section.on_annotated)

    def _some(self, seen: Sample, rng: np.random.Generator, share: float) -> Sample:
        most = self._section.most
        lesions = int(rng.integers(1, most + 1)) if rng.random() < share else 0
        plain = int(rng.integers(1, most + 1)) if rng.random() < self._section.plain else 0
        return self.clone(seen, rng, lesions, plain).sample

    def clone(self, seen: Sample, rng: np.random.Generator, lesions: int, plain: int) -> Cloned:
        """Clone lesions and patches of plain skin, fewer if there is no room.

        Args:
            seen: The sample that they are cloned onto, with its skin.
            rng: Draws everything.
            lesions, plain: How many of each.
        """
        nothing, points = np.zeros((0, 4), np.float32), seen.skin_points()
        if not len(points) or not lesions + plain or not self._donors:
            return Cloned(seen, nothing, nothing)
        index = int(rng.choice(self._donors))
        donor = self._annotated[index]
        bare = donor
        if len(self._clear) and rng.random() < _CLEAR_DONOR:
            bare = self._clear[int(rng.integers(len(self._clear)))]
        canvas = _Canvas(seen, points, 0.0 if self._faint else _SEEN)
        kinds = rng.permutation(np.repeat([True, False], [lesions, plain]))
        for is_lesion in kinds.tolist():
            if is_lesion:
                for _ in range(_ATTEMPTS):
                    lesion = self._lesion(donor, rng)
                    if lesion is not None and canvas.paste(lesion[0], rng, lesion[1]):
                        break
                    if canvas.empty:  # Perhaps all lesions of this photo are faint.
                        donor = self._annotated[int(rng.choice(self._donors))]
            elif len(donor.boxes):
                shape = donor.boxes[rng.integers(len(donor.boxes))]
                skin = self._plain(bare, shape[2:] - shape[:2], rng)
                if skin is not None:
                    canvas.paste(skin, rng, None)
        return canvas.cloned()

    def _lesion(self, donor: Sample, rng: np.random.Generator) -> tuple[Patch, int] | None:
        """Return the clearest of some lesions without neighbours, and its label.

        None if none is clear.
        """
        best: tuple[Patch, int] | None = None
        alone = _alone(donor.boxes)
        compared, least = (1, -1.0) if self._faint else (_COMPARED, _VISIBLE)
        for n in rng.choice(alone, compared).tolist() if len(alone) else ():
            box = donor.boxes[n]
            centre, halves = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
            if donor.skin_share(centre, _FADED * halves) < _SKIN:
                continue
            patch = self._patch(donor.pixels, centre, halves, rng)
            if patch is not None and patch.contrast > (best[0].contrast if best else least):
                best = patch, int(donor.labels[n])
        return best

    def _plain(self, donor: Sample, sides: Vector, rng: np.random.Generator) -> Patch | None:
        """Return the fainter of two places of plain skin of a lesion's size; None without room."""
        points = donor.skin_points()
        best: Patch | None = None
        for centre in points[rng.integers(0, len(points), _TRIES)] if len(points) else ():
            halves = sides / 2
            if donor.skin_share(centre, _FADED * halves) < _SKIN or _others_near(
                donor.boxes, centre, halves
            ):
                continue
            patch = self._patch(donor.pixels, centre, halves, rng)
            if patch is None:
                continue
            if best is not None:
                return min(best, patch, key=lambda one: one.contrast)
            best = patch
        return best

    def _patch(
        self, photo: Pixels, centre: Vector, halves: Vector, rng: np.random.Generator
    ) -> Patch | None:
        """Cut a patch at a new size and angle; None if it would reach over the photo's edge."""
        side = 2 * float(np.sqrt(halves.prod()))
        low, high = np.log(self._section.size)
        target = float(np.clip(np.exp(rng.uniform(low, high)), _LEAST * side, _MOST * side))
        angle = rng.uniform(-np.pi, np.pi)
        mirror = rng.choice((-1.0, 1.0))
        soft = float(rng.uniform(0.3, 1.1)) if rng.random() < 0.35 else 0.0
        full, gone = float(rng.uniform(1.0, 1.2)), float(rng.uniform(1.4, _FADED))
        reach = _REACH * halves
        if (centre < reach).any() or (centre + reach > photo.shape[1::-1]).any():
            return None
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = target / side * turn @ np.diag((mirror, 1.0))
        turned = np.sqrt(halves.astype(np.float64) ** 2 @ (linear**2).T)
        half = int(np.ceil(_REACH * turned.max())) + 1
        inverse = np.linalg.inv(linear)

        left, top = np.floor(centre - reach).astype(int)
        right, bottom = np.ceil(centre + reach).astype(int)
        piece = photo[top:bottom, left:right]
        height, width = piece.shape[:2]
        # Average down first: interpolation alone would turn texture into noise.
        shrink = min(1.0, target / side)
        small = max(2, round(width * shrink)), max(2, round(height * shrink))
        piece = np.asarray(cv2.resize(piece, small, interpolation=cv2.INTER_AREA), np.uint8)
        factors = np.array([small[0] / width, small[1] / height])
        to_piece = np.diag(factors) @ inverse
        origin = (centre - (left, top)) * factors - to_piece @ np.array([half, half])
        # OpenCV counts from the centre of the first pixel, boxes from its corner.
        matrix = np.column_stack((to_piece, origin + to_piece @ np.array([0.5, 0.5]) - 0.5))
        warped = cv2.warpAffine(
            piece,
            matrix,
            (2 * half, 2 * half),
            flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        if soft:
            warped = cv2.GaussianBlur(warped, (0, 0), soft)

        offsets = (
            np.stack(np.meshgrid(np.arange(2 * half), np.arange(2 * half)), axis=-1) + 0.5 - half
        )
        radius = np.linalg.norm((offsets @ inverse.T) / halves, axis=-1)
        share = np.clip((gone - radius) / (gone - full), 0, 1)
        cover = (share * share * (3 - 2 * share)).astype(np.float32)
        return Patch(np.asarray(warped, np.uint8), cover, turned)


class _Canvas:
    """Hold the sample that patches are cloned onto, and the places that are taken.

    least: grey levels by which a lesion must change it.
    """

    def __init__(self, seen: Sample, points: Points, least: float) -> None:
        self._seen, self._points, self._least = seen, points, least
        self._pixels = seen.pixels.copy()
        self._taken = [seen.boxes]
        self._lesions: list[NDArray[np.float32]] = []
        self._labels: list[int] = []
        self._plain: list[NDArray[np.float32]] = []

    def paste(self, patch: Patch, rng: np.random.Generator, label: int | None) -> bool:
        """Blend the patch in if there is room on the skin, and return whether there is.

        label: None for plain skin.
        """
        half = len(patch.pixels) // 2
        way = str(rng.choice(list(WAYS)))
        places = np.round(self._points[rng.integers(0, len(self._points), _TRIES)]).astype(int)
        height, width = self._pixels.shape[:2]
        taken = np.concatenate(self._taken)
        for x, y in places.tolist():
            if min(x, y) < half or x + half > width or y + half > height:
                continue
            at, seen = np.array((x, y)), patch.halves * _FADED
            apart = (taken[:, 2:] < at - seen).any(1) | (taken[:, :2] > at + seen).any(1)
            if not apart.all() or self._seen.skin_share(at, seen) < _SKIN:
                continue
            window = self._pixels[y - half : y + half, x - half : x + half]
            made = blend(window, patch.pixels, patch.cover, way, rng)
            change = np.abs(made.astype(np.int16) - window)[patch.cover > 0.9]
            if label is not None and (not change.size or change.mean() < self._least):
                continue
            window[:] = made
            box = np.concatenate((at - patch.halves, at + patch.halves)).astype(np.float32)
            self._taken.append(box[None])
            if label is None:
                self._plain.append(box)
            else:
                self._lesions.append(box)
                self._labels.append(label)
            return True
        return False

    @property
    def empty(self) -> bool:
        """Return whether no lesion has been cloned yet."""
        return not self._lesions

    def cloned(self) -> Cloned:
        lesions = np.array(self._lesions, np.float32).reshape(-1, 4)
        plain = np.array(self._plain, np.float32).reshape(-1, 4)
        boxes = np.concatenate((self._seen.boxes, lesions))
        labels = np.concatenate((self._seen.labels, np.array(self._labels, np.int64)))
        return Cloned(
            replace(self._seen, pixels=self._pixels, boxes=boxes, labels=labels), lesions, plain
        )


def _alone(boxes: Boxes) -> NDArray[np.intp]:
    """Return the indices of boxes without another in the patch around them."""
    centres, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    low, high = centres - _FADED * halves, centres + _FADED * halves
    near = ((boxes[None, :, :2] < high[:, None]) & (boxes[None, :, 2:] > low[:, None])).all(2)
    return np.flatnonzero(near.sum(1) == 1)


def _others_near(boxes: Boxes, centre: Vector, halves: Vector) -> bool:
    """Return whether a box reaches into a patch."""
    reach = _FADED * halves
    return bool(((boxes[:, :2] < centre + reach) & (boxes[:, 2:] > centre - reach)).all(1).any())
