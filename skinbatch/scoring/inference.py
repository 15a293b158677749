"""Run the models of a pack on a batch: segment, crop, detect and classify."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from skinbatch.errors import memory_is_full
from skinbatch.grading.face import Face, find_face, skin_in_crop
from skinbatch.models.protocols import Classifier, InputKind, Models
from skinbatch.runs.reused_stages import DETECTOR, SEGMENTER
from skinbatch.scoring.earlier import Earlier, takes
from skinbatch.scoring.failures import (
    DeviceLost,
    ModelFailure,
    device_is_lost,
    without_nan,
)
from skinbatch.scoring.seconds import Seconds
from skinbatch.tables.names import prob_columns
from skinbatch.types import Detections

RGB = NDArray[np.uint8]
LabelMap = NDArray[np.uint8]
Probs = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Inferred:
    """Hold the models' outputs for a batch, one entry for each photo.

    `probs` holds such a sequence for each classifier. An entry is a ModelFailure if a model failed
    on the photo, and None if there was no face to look at. Boxes are in pixels of the displayed
    original. `earlier` holds what was taken from an earlier scoring. A map, a face's mask and boxes
    that were not needed are then missing.
    """

    photos: Sequence[RGB]
    maps: Sequence[LabelMap | ModelFailure | None]
    faces: Sequence[Face | ModelFailure]
    detections: Sequence[Detections | ModelFailure | None]
    probs: Sequence[Sequence[Probs | ModelFailure | None]]
    earlier: Sequence[Earlier | None]


def columns_of(classifiers: Iterable[Classifier]) -> tuple[Mapping[str, str], ...]:
    """Return class -> column of the table `images`, for each classifier."""
    taken: list[str] = []
    columns = []
    for classifier in classifiers:
        own = prob_columns(classifier.head, classifier.classes, taken)
        taken += own.values()
        columns.append(own)
    return tuple(columns)


class Inference:
    """Run the models on batches of photos. Threads may share it if the models allow that."""

    def __init__(
        self, models: Models, *, closeups: bool, seconds: Seconds, on_progress: Callable[[], None]
    ) -> None:
        """Create it.

        Args:
            models: of the pack.
            closeups: the segmenter was trained on close-ups, see SegmenterStage.
            seconds: receives the time of each stage.
            on_progress: called after every call of a model.
        """
        self.models = models
        self._closeups = closeups
        self._seconds = seconds
        self._on_progress = on_progress
        self._columns = columns_of(models.classifiers)

    def __call__(self, photos: Sequence[RGB], earlier: Sequence[Earlier | None]) -> Inferred:
        """Return the outputs for all photos.

        Args:
            photos: (H, W, 3) uint8 each, as displayed.
            earlier: what is taken from an earlier scoring, for each photo.
        """
        taken = list(earlier)
        maps, faces = self._faces(photos, taken)
        detections = self._detections(photos, faces, taken)
        probs = [
            self._probs(classifier, columns, photos, faces, taken)
            for classifier, columns in zip(self.models.classifiers, self._columns, strict=True)
        ]
        return Inferred(photos, maps, faces, detections, probs, taken)

    def _faces(
        self, photos: Sequence[RGB], taken: list[Earlier | None]
    ) -> tuple[list[LabelMap | ModelFailure | None], list[Face | ModelFailure]]:
        """Return label maps and faces, taken from an earlier scoring or made by the segmenter.

        An entry of `taken` becomes None if its face is not the one of this photo.
        """
        maps: list[LabelMap | ModelFailure | None] = [None] * len(photos)
        faces: dict[int, Face | ModelFailure] = {}
        start = time.perf_counter()
        for n, one in enumerate(taken):
            if one is None or SEGMENTER not in one.stages:
                continue
            maps[n], face, taken[n] = self._taken_face(one, photos[n])
            if face is not None:
                faces[n] = face
        seconds = time.perf_counter() - start

        missing = [n for n in range(len(photos)) if n not in faces]
        new_maps = self._run("segmenter", self.models.segmenter, [photos[n] for n in missing])
        start = time.perf_counter()
        for n, label_map in zip(missing, new_maps, strict=True):
            maps[n] = label_map
            if isinstance(label_map, ModelFailure):
                faces[n] = label_map
                taken[n] = None
                continue
            face = faces[n] = self._face(label_map, photos[n])
            one = taken[n]
            if one is not None and not one.agrees(face):
                taken[n] = None
        self._seconds.add("crop", seconds + time.perf_counter() - start)
        return maps, [faces[n] for n in range(len(photos))]

    def _taken_face(
        self, one: Earlier, photo: RGB
    ) -> tuple[LabelMap | None, Face | None, Earlier | None]:
        """Return label map and face of an earlier result, and what of it can be used.

        The map is None if only the crop is needed. The face is None if the segmenter must run.
        """
        if (one.result.height, one.result.width) != photo.shape[:2]:
            return None, None, None
        if not one.needs_mask:
            return None, one.face(), one
        label_map = one.label_map(self.models.segmenter)
        if label_map is None:
            return None, None, replace(one, stages=one.stages - {SEGMENTER})
        face = self._face(label_map, photo)
        return (label_map, face, one) if one.agrees(face) else (None, None, None)

    def _face(self, label_map: LabelMap, photo: RGB) -> Face:
        height, width = photo.shape[:2]
        classes = self.models.segmenter.classes
        return find_face(label_map, classes, width, height, closeups=self._closeups)

    def _detections(
        self,
        photos: Sequence[RGB],
        faces: Sequence[Face | ModelFailure],
        taken: Sequence[Earlier | None],
    ) -> list[Detections | ModelFailure | None]:
        """Return boxes in pixels of the displayed original, for photos with a face."""
        detector = self.models.detector
        chosen = [
            isinstance(face, Face) and face.found and not takes(one, DETECTOR)
            for face, one in zip(faces, taken, strict=True)
        ]
        detections = self._on_skin("detector", detector, detector.input, photos, faces, chosen)

        for n, (boxes, face) in enumerate(zip(detections, faces, strict=True)):
            if isinstance(boxes, Detections) and isinstance(face, Face):
                detections[n] = _in_original(boxes, face, detector.input)
        return detections

    def _probs(
        self,
        classifier: Classifier,
        columns: Mapping[str, str],
        photos: Sequence[RGB],
        faces: Sequence[Face | ModelFailure],
        taken: Sequence[Earlier | None],
    ) -> list[Probs | ModelFailure | None]:
        """Return a classifier's probabilities, for photos with skin.

        Lesions are not counted on skin of the body, but a disease shows on it too.
        """
        name, stem = f"classifier {classifier.head}", f"classifier-{classifier.head}"
        with_skin = [isinstance(face, Face) and face.crop is not None for face in faces]
        chosen = [
            has_skin and not takes(one, stem)
            for has_skin, one in zip(with_skin, taken, strict=True)
        ]
        probs: list[Probs | ModelFailure | None] = self._on_skin(
            name, classifier, classifier.input, photos, faces, chosen
        )

        for n, one in enumerate(taken):
            if one is not None and stem in one.stages and with_skin[n]:
                probs[n] = one.probs(columns[c] for c in classifier.classes)
        return [without_nan(name, values) for values in probs]

    def _on_skin(
        self,
        name: str,
        model: Callable[[Sequence[RGB]], Iterable[T]],
        kind: InputKind,
        photos: Sequence[RGB],
        faces: Sequence[Face | ModelFailure],
        chosen: Sequence[bool],
    ) -> list[T | ModelFailure | None]:
        """Return the model's output for each chosen photo, None for the others.

        Failures are passed on.
        """
        outputs: list[T | ModelFailure | None] = [
            face if isinstance(face, ModelFailure) else None for face in faces
        ]
        numbers, inputs = [], []
        for n, face in enumerate(faces):
            if chosen[n] and isinstance(face, Face):
                numbers.append(n)
                inputs.append(model_input(photos[n], face, kind))

        for n, output in zip(numbers, self._run(name, model, inputs), strict=True):
            outputs[n] = output
        return outputs

    def _run(
        self, name: str, model: Callable[[Sequence[RGB]], Iterable[T]], inputs: Sequence[RGB]
    ) -> list[T | ModelFailure]:
        """Run the model on all inputs at once.

        If that raises, run it on one input after the other, to find the one that causes the error.
        """
        start = time.perf_counter()
        try:
            return list(model(inputs)) if inputs else []
        except Exception as e:  # frameworks raise anything; the photo becomes a `model_error`
            if device_is_lost(e):
                raise DeviceLost(f"{name}: {e}") from e
            if len(inputs) == 1:
                if memory_is_full(e):  # other photos in progress may have caused it
                    raise MemoryError(f"{name}: {e}") from e
                return [ModelFailure(name, e)]
        finally:
            self._seconds.add(name.split()[0], time.perf_counter() - start)
            self._on_progress()
        return [self._run(name, model, [one])[0] for one in inputs]


def model_input(rgb: RGB, face: Face, kind: InputKind) -> RGB:
    """Return the input that a model declares: the photo, the face, or the face with only its skin.

    The face is cropped at full resolution. In a `masked_crop`, all pixels but skin are zero.
    """
    if kind == "image":
        return rgb
    assert face.crop is not None
    x1, y1, x2, y2 = face.crop
    crop = rgb[y1:y2, x1:x2]
    if kind == "masked_crop":
        crop = crop * skin_in_crop(face)[..., None]
    return np.ascontiguousarray(crop)


def _in_original(boxes: Detections, face: Face, kind: InputKind) -> Detections:
    """Return boxes of a crop in pixels of the displayed original, clipped, without empty ones."""
    xyxy = boxes.xyxy.astype(np.float32)
    if kind != "image":
        assert face.crop is not None
        xyxy = xyxy + np.array([face.crop[0], face.crop[1]] * 2, np.float32)
    xyxy = np.clip(xyxy, 0, np.array([face.width, face.height] * 2, np.float32))
    kept = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
    return Detections(xyxy[kept], boxes.scores[kept], boxes.labels[kept], boxes.saturated)
