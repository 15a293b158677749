"""A trial of a detector: does it count lesions on faces of another set than those where it has learned them?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skinbatch.models.base import Detector
from skinbatch.models.detectors.mmdet_architectures import DetectorSpec
from skinbatch.train.detection.clones import Cloner
from skinbatch.train.detection.crops import Boxes, Pixels
from skinbatch.train.detection.photos import NO_BOXES, BoxedPhoto, ScaledPhotos
from skinbatch.train.recipe_sections import CloneSection
from skinbatch.types import Detections

# Patches of either kind on a face.
A_FACE = 5
# A box is the lesion's if its centre lies in the lesion's own box, enlarged by this factor.
_NEAR = 1.2


@dataclass(frozen=True, slots=True)
class ClonedFace:
    """A clear face, as it is and with patches. lesions, plain: (N, 4) float32, where they are, pixels."""

    clear: Pixels
    pixels: Pixels
    lesions: Boxes
    plain: Boxes


@dataclass(frozen=True, slots=True)
class Trial:
    """lesions, plain: share of the cloned lesions, of the cloned patches of plain skin, that are counted, of how many.
    clear_boxes: boxes counted on a clear face, of how many faces."""

    lesions: float
    plain: float
    clear_boxes: float
    of_lesions: int
    of_plain: int
    faces: int


def cloned_faces(
    hosts: Sequence[BoxedPhoto], donors: Sequence[BoxedPhoto], spec: DetectorSpec, section: CloneSection, seed: int
) -> Iterator[ClonedFace]:
    """Clone lesions of `donors` onto `hosts`, at the scale of the network. The same seed gives the same faces."""
    photos = ScaledPhotos(hosts, spec)
    cloner = Cloner(ScaledPhotos(donors, spec), ScaledPhotos((), spec), section, faint=True)
    for n in range(len(photos)):
        host = photos[n]
        rng = np.random.default_rng((seed, n, 3))
        made = cloner.clone(host, rng, A_FACE, A_FACE)
        yield ClonedFace(host.pixels, made.sample.pixels, made.lesions, made.plain)


def try_detector(detector: Detector, faces: Iterator[ClonedFace], threshold: float) -> Trial:
    """Count what the detector finds at or over `threshold` on cloned lesions, on plain patches and on clear faces."""
    lesions, plain = list[bool](), list[bool]()
    on_clear = []
    for face in faces:
        cloned, clear = (_counted(found, threshold) for found in detector([face.pixels, face.clear]))
        lesions += hits(face.lesions, cloned).tolist()
        plain += hits(face.plain, cloned).tolist()
        on_clear.append(len(clear))
    return Trial(
        lesions=float(np.mean(lesions)) if lesions else 0.0,
        plain=float(np.mean(plain)) if plain else 0.0,
        clear_boxes=float(np.mean(on_clear)) if on_clear else 0.0,
        of_lesions=len(lesions),
        of_plain=len(plain),
        faces=len(on_clear),
    )


def hits(boxes: Boxes, found: Boxes) -> NDArray[np.bool_]:
    """Return for each of `boxes`, (N, 4), whether the centre of one of `found` lies in it or just beside it."""
    centres = (found[:, :2] + found[:, 2:]) / 2
    middles, reach = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * _NEAR
    near = np.all(np.abs(centres[None] - middles[:, None]) <= reach[:, None], axis=2)
    return np.asarray(np.any(near, axis=1), np.bool_)


def _counted(found: Detections, threshold: float) -> Boxes:
    kept = found.xyxy[found.scores >= threshold]
    return kept.astype(np.float32) if len(kept) else NO_BOXES
