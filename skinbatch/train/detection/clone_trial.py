"""Try whether a detector counts lesions on faces from another set than its lesions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.models.protocols import Detector
from skinbatch.train.detection.clones import Cloner
from skinbatch.train.detection.crops import Boxes, Pixels
from skinbatch.train.detection.scaled_photos import NO_BOXES, BoxedPhoto, ScaledPhotos
from skinbatch.train.detection.scores import THRESHOLDS
from skinbatch.train.recipe_sections import CloneSection
from skinbatch.types import Detections

# Number of patches of each kind on a face.
A_FACE = 5
# A box belongs to a lesion if its centre lies in the lesion's own box, enlarged by this factor.
_NEAR = 1.2


@dataclass(frozen=True, slots=True)
class ClonedFace:
    """Hold a clear face, as it is and with patches. lesions, plain: (N, 4) float32, pixels."""

    clear: Pixels
    pixels: Pixels
    lesions: Boxes
    plain: Boxes


@dataclass(frozen=True, slots=True)
class Trial:
    """Hold the outcome of a trial.

    Attributes:
        lesions, plain: share of the cloned lesions, or of the cloned patches of plain skin, that
            are counted.
        clear_boxes: boxes counted on a clear face.
        of_lesions, of_plain, faces: how many there were.
    """

    lesions: float
    plain: float
    clear_boxes: float
    of_lesions: int
    of_plain: int
    faces: int


def cloned_faces(
    hosts: Sequence[BoxedPhoto],
    donors: Sequence[BoxedPhoto],
    spec: DetectorSpec,
    section: CloneSection,
    seed: int,
) -> Iterator[ClonedFace]:
    """Clone lesions of `donors` onto `hosts` at the network's scale.

    A seed always gives the same faces.
    """
    photos = ScaledPhotos(hosts, spec)
    cloner = Cloner(ScaledPhotos(donors, spec), ScaledPhotos((), spec), section, faint=True)
    for n in range(len(photos)):
        host = photos[n]
        rng = np.random.default_rng((seed, n, 3))
        made = cloner.clone(host, rng, A_FACE, A_FACE)
        yield ClonedFace(host.pixels, made.sample.pixels, made.lesions, made.plain)


@dataclass(frozen=True, slots=True)
class SeenFace:
    """Hold a cloned face's patches, and what a detector found with and without them."""

    lesions: Boxes
    plain: Boxes
    detected: Detections
    detected_clear: Detections


def see(detector: Detector, faces: Iterator[ClonedFace]) -> list[SeenFace]:
    """Run a detector on cloned faces and on the same faces without patches."""
    return [
        SeenFace(face.lesions, face.plain, *detector([face.pixels, face.clear])) for face in faces
    ]


def judge(faces: Sequence[SeenFace], threshold: float) -> Trial:
    """Count the boxes at or above `threshold` on lesions, on plain patches and on clear faces."""
    lesions, plain = list[bool](), list[bool]()
    on_clear = []

    for face in faces:
        cloned, clear = (
            _counted(detections, threshold) for detections in (face.detected, face.detected_clear)
        )
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


def quiet_threshold(faces: Sequence[SeenFace], lowest: float, clone: CloneSection) -> float:
    """Return the lowest threshold from `lowest` up at which clear skin is as quiet as asked for."""
    for threshold in (value for value in THRESHOLDS if value >= lowest):
        trial = judge(faces, threshold)
        quiet = clone.most_boxes_a_face is None or trial.clear_boxes <= clone.most_boxes_a_face
        if quiet and trial.plain <= clone.most_plain_counted:
            return threshold

    return max(lowest, THRESHOLDS[-1])


def hits(boxes: Boxes, counted: Boxes) -> NDArray[np.bool_]:
    """Return, for each of `boxes`, whether the centre of a counted box lies in or just beside it.

    boxes, counted: (N, 4).
    """
    centres = (counted[:, :2] + counted[:, 2:]) / 2
    middles, reach = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * _NEAR
    near = np.all(np.abs(centres[None] - middles[:, None]) <= reach[:, None], axis=2)
    return np.asarray(np.any(near, axis=1), np.bool_)


def _counted(detections: Detections, threshold: float) -> Boxes:
    kept = detections.xyxy[detections.scores >= threshold]
    return kept.astype(np.float32) if len(kept) else NO_BOXES
