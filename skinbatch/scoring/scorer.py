"""Score photos: segment, crop, detect, classify, count and grade.

One `Scorer` serves single photos in a notebook as well as the batches of a unit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from skinbatch.archive.decode import PhotoError, decode, decode_image
from skinbatch.archive.named import read_named
from skinbatch.config import Config
from skinbatch.errors import UsageError
from skinbatch.grading.face import Face, find_face, skin_in_crop
from skinbatch.grading.grade import grade
from skinbatch.grading.masks import mask_rle
from skinbatch.grading.quality import face_quality
from skinbatch.models.base import Classifier, InputKind
from skinbatch.models.build import build
from skinbatch.models.detectors.tiling import TiledDetector
from skinbatch.models.pack import Pack, load_pack
from skinbatch.models.runtime.base import Runtime
from skinbatch.models.runtime.network import computed_by
from skinbatch.runs.stages import DETECTOR, SEGMENTER
from skinbatch.scoring.earlier import Earlier, takes
from skinbatch.scoring.failures import (
    DeviceLost,
    ModelFailure,
    device_is_lost,
    finite,
    memory_is_full,
)
from skinbatch.scoring.seconds import Seconds
from skinbatch.storage.locate import Locator
from skinbatch.tables.names import prob_columns
from skinbatch.types import Detections, ImageResult, Status

RGB = NDArray[np.uint8]
T = TypeVar("T")

CPU_BATCH = 4
GPU_BATCH = 32


@dataclass(frozen=True, slots=True)
class Inferred:
    """Hold the models' outputs for a batch, one entry for each photo.

    `probs` holds such a sequence for each classifier. An entry is a ModelFailure if a model failed
    on the photo, and None if there was no face to look at. Boxes are in pixels of the displayed
    original. `earlier` holds what was taken from an earlier scoring. A map, a face's mask and boxes
    that were not needed are then missing.
    """

    photos: Sequence[RGB]
    maps: Sequence[NDArray[np.uint8] | ModelFailure | None]
    faces: Sequence[Face | ModelFailure]
    detections: Sequence[Any]
    probs: Sequence[Sequence[Any]]
    earlier: Sequence[Earlier | None]


class Scorer:
    """Score photos with one pack: `scorer(photo)` for one photo, `score_batch` for many.

    Threads may share a scorer if its models allow that; those of this package do.

    Args:
        pack: Name or folder of a pack, or a loaded Pack.
        device: `auto` (a GPU if there is one, else the CPU) or one of torch's device names.
        config: Settings; None for the defaults.
        on_progress: Called by the threads that use the scorer, after every call of a model, and
            after every few tiles of a model that cuts photos into tiles.
        lanes: threads that will call the scorer at the same time.

    Raises:
        PackError: If the pack is missing or malformed, or its files do not have their recorded
            hashes.

    Example:
        >>> scorer = skinbatch.Scorer("packs/own", device="cpu")
        >>> result = scorer("photos/visit-1/a.jpg")
        >>> result.count_total, result.count_left, result.grade
        (4, 3, 'mild')
    """

    def __init__(
        self,
        pack: str | Path | Pack = "starter",
        *,
        device: str = "auto",
        config: Config | None = None,
        on_progress: Callable[[], None] = lambda: None,
        lanes: int = 1,
    ) -> None:
        self.config = config or Config()
        self.pack = pack if isinstance(pack, Pack) else load_pack(str(pack), self.config.storage)
        self.device = (
            ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        )
        runtime = Runtime(self.config.engine.runtime, torch.get_num_threads(), lanes)
        self.models = build(self.pack, self.device, self.config.model, runtime)
        self.computed_by = computed_by(runtime, self.device, self.pack.precision(self.config.model))
        self.batch_size = self.config.engine.batch_size or (
            CPU_BATCH if self.device == "cpu" else GPU_BATCH
        )
        self.seconds = Seconds()
        self._on_progress = on_progress
        self._locator = Locator(self.config.storage)
        if isinstance(self.models.detector, TiledDetector):
            self.models.detector.on_tiles = on_progress
        taken: list[str] = []
        self._columns: list[dict[str, str]] = []
        for classifier in self.models.classifiers:
            columns = prob_columns(classifier.head, classifier.classes, taken)
            taken += columns.values()
            self._columns.append(columns)

    def __call__(self, image: str | Path | bytes | RGB | Image.Image | Any) -> ImageResult:
        """Score one photo.

        Args:
            image: A path or an s3:// address; either of a shard followed by `/member`; the bytes of
                a file; a PIL image in any mode; or an (H, W, 3) uint8 RGB array of the photo as
                displayed. EXIF orientation is applied to all but the array.

        Returns:
            The result. Boxes are in pixels of the displayed photo. If the photo cannot be decoded,
            `status` and `error` give the reason.

        Raises:
            UsageError: If nothing has that name, or the array has another shape or type.
            StoreError: If the store does not answer, or does not allow the photo to be read.

        Example:
            >>> skinbatch.Scorer("packs/own")("photos/visit-1/cut-off.jpg").status.value
            'truncated'
        """
        try:
            rgb = self._pixels(image)
        except PhotoError as e:
            return ImageResult(e.status, str(e))
        return self.score_batch([rgb])[0]

    def _pixels(self, image: str | Path | bytes | RGB | Image.Image | Any) -> RGB:
        settings = self.config.decode
        if isinstance(image, str | Path):
            name = os.fspath(image)
            fetched = read_named(name, self._locator, settings)
            if fetched.data is None:
                raise PhotoError(fetched.status, fetched.error or name)
            return decode(fetched.data, settings, name).rgb
        if isinstance(image, bytes | bytearray | memoryview):
            return decode(bytes(image), settings, "image").rgb
        if isinstance(image, Image.Image):
            return decode_image(image, settings, "image").rgb
        if (
            not isinstance(image, np.ndarray)
            or image.ndim != 3
            or image.shape[2] != 3
            or image.dtype != np.uint8
        ):
            got = (
                f"{image.dtype} {image.shape}"
                if isinstance(image, np.ndarray)
                else type(image).__name__
            )
            raise UsageError(
                f"a photo is a path, bytes, a PIL image or an (H, W, 3) uint8 RGB array, not {got}"
            )
        return np.ascontiguousarray(image)

    def score_batch(
        self, photos: Sequence[RGB], earlier: Sequence[Earlier | None] | None = None
    ) -> list[ImageResult]:
        """Score several photos and return their results in the same order.

        A photo on which a model raises or returns NaN gets the status `model_error`; the others are
        scored.

        Args:
            photos: One (H, W, 3) uint8 RGB array for each photo, as displayed.
            earlier: What is taken from an earlier scoring, for each photo. The models of these
                stages are not run.

        Returns:
            One result for each photo, with boxes in pixels of the photo as displayed.

        Raises:
            MemoryError: If a photo alone in a batch needs more memory than there is.
            DeviceLost: If this process cannot use the GPU any more.

        Example:
            >>> grey = np.full((96, 96, 3), 128, np.uint8)
            >>> [result.count_total for result in skinbatch.Scorer("packs/own").score_batch([grey])]
            [0]
        """
        return self.grade(self.infer(photos, earlier))

    def infer(
        self, photos: Sequence[RGB], earlier: Sequence[Earlier | None] | None = None
    ) -> Inferred:
        """Run the models: the first part of `score_batch`."""
        detector = self.models.detector
        taken = list(earlier or [None] * len(photos))
        maps, faces = self._faces(photos, taken)

        with_face = [isinstance(face, Face) and face.found for face in faces]
        detect = [
            has and not takes(one, DETECTOR) for has, one in zip(with_face, taken, strict=True)
        ]
        detections = self._on_skin("detector", detector, detector.input, photos, faces, detect)

        # Lesions are not counted on skin of the body, but a disease shows on it too.
        with_skin = [isinstance(face, Face) and face.crop is not None for face in faces]
        probs: list[list[Any]] = []
        for classifier, columns in zip(self.models.classifiers, self._columns, strict=True):
            name, stem = f"classifier {classifier.head}", f"classifier-{classifier.head}"
            classify = [
                has and not takes(one, stem) for has, one in zip(with_skin, taken, strict=True)
            ]
            found = self._on_skin(name, classifier, classifier.input, photos, faces, classify)
            for n, one in enumerate(taken):
                if one is not None and stem in one.stages and with_skin[n]:
                    found[n] = one.probs(columns[c] for c in classifier.classes)
            probs.append([finite(name, p) for p in found])
        return Inferred(photos, maps, faces, detections, probs, taken)

    def _faces(
        self, photos: Sequence[RGB], taken: list[Earlier | None]
    ) -> tuple[list[Any], list[Any]]:
        """Return label maps and faces, taken from an earlier scoring or made by the segmenter.

        An entry of `taken` becomes None if its face is not the one of this photo.
        """
        maps: list[Any] = [None] * len(photos)
        faces: list[Any] = [None] * len(photos)
        start = time.perf_counter()
        for n, one in enumerate(taken):
            if one is not None and SEGMENTER in one.stages:
                maps[n], faces[n], taken[n] = self._taken_face(one, photos[n])
        seconds = time.perf_counter() - start

        missing = [n for n, face in enumerate(faces) if face is None]
        found = self._run("segmenter", self.models.segmenter, [photos[n] for n in missing])
        start = time.perf_counter()
        for n, label_map in zip(missing, found, strict=True):
            maps[n] = label_map
            faces[n] = (
                label_map
                if isinstance(label_map, ModelFailure)
                else self._face(label_map, photos[n])
            )
            one = taken[n]
            if one is not None and not (isinstance(faces[n], Face) and one.agrees(faces[n])):
                taken[n] = None
        self.seconds.add("crop", seconds + time.perf_counter() - start)
        return maps, faces

    def _taken_face(self, one: Earlier, photo: RGB) -> tuple[Any, Face | None, Earlier | None]:
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

    def grade(self, found: Inferred) -> list[ImageResult]:
        """Count and grade without running a model: the second part of `score_batch`."""
        start = time.perf_counter()
        results = [self._result(found, n) for n in range(len(found.photos))]
        self.seconds.add("grade", time.perf_counter() - start)
        return results

    def _run(
        self, name: str, model: Callable[[Sequence[RGB]], Sequence[T]], inputs: Sequence[RGB]
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
            self.seconds.add(name.split()[0], time.perf_counter() - start)
            self._on_progress()
        return [self._run(name, model, [one])[0] for one in inputs]

    def _face(self, label_map: NDArray[np.uint8], photo: RGB) -> Face:
        height, width = photo.shape[:2]
        closeups = self.pack.segmenter.closeups
        return find_face(label_map, self.models.segmenter.classes, width, height, closeups=closeups)

    def _on_skin(
        self,
        name: str,
        model: Any,
        kind: InputKind,
        photos: Sequence[RGB],
        faces: Sequence[Face | ModelFailure],
        chosen: Sequence[bool],
    ) -> list[Any]:
        """Return the model's result for each chosen photo, None for the others.

        Failures are passed on. Boxes are returned in pixels of the displayed original.
        """
        wanted = [n for n, choice in enumerate(chosen) if choice]
        inputs = [model_input(photos[n], faces[n], kind) for n in wanted]
        results: list[Any] = [face if isinstance(face, ModelFailure) else None for face in faces]
        for n, found in zip(wanted, self._run(name, model, inputs), strict=True):
            face = faces[n]
            assert isinstance(face, Face)
            results[n] = _in_original(found, face, kind) if isinstance(found, Detections) else found
        return results

    def _result(self, found: Inferred, n: int) -> ImageResult:
        rgb, face, boxes = found.photos[n], found.faces[n], found.detections[n]
        probs = [values[n] for values in found.probs]
        height, width = rgb.shape[:2]
        for part in (face, boxes, *probs):
            if isinstance(part, ModelFailure):
                return ImageResult(Status.MODEL_ERROR, part.message, width=width, height=height)
        assert isinstance(face, Face)
        columns: dict[str, float] = {}
        top: str | None = None
        for classifier, names, values in zip(
            self.models.classifiers, self._columns, probs, strict=True
        ):
            if values is None:
                continue
            columns |= {names[c]: float(v) for c, v in zip(classifier.classes, values, strict=True)}
            if top is None:
                top = _top_class(classifier, values)
        masks = self._masks(found, n, width, height) if self.config.run.save_masks else None
        one = found.earlier[n]
        stages = frozenset() if one is None else one.stages
        if one is not None and DETECTOR in stages:
            return replace(one.result, probs=columns, top_class=top, mask_rle=masks, taken=stages)

        quality = face_quality(rgb, face)
        graded = grade(
            boxes if boxes is not None else Detections.empty(),
            self.models.detector.classes,
            face,
            self.config.grading,
            self.pack.threshold,
        )
        return ImageResult(
            Status.OK,
            width=width,
            height=height,
            face=face.found,
            faces=face.faces,
            view=graded.view,
            skin_fraction=face.skin_fraction,
            crop=face.crop,
            sharpness=quality.sharpness if quality else None,
            brightness=quality.brightness if quality else None,
            ita_degrees=quality.ita_degrees if quality else None,
            count_total=graded.count_total,
            count_left=graded.count_left,
            count_right=graded.count_right,
            counts=graded.counts,
            saturated=graded.saturated,
            grade=graded.grade,
            grade_level=graded.grade_level,
            grade_scheme=graded.grade_scheme,
            probs=columns,
            top_class=top,
            boxes=graded.boxes,
            mask_rle=masks,
            taken=stages,
        )

    def _masks(self, found: Inferred, n: int, width: int, height: int) -> Mapping[str, bytes]:
        one = found.earlier[n]
        if one is not None and SEGMENTER in one.stages and one.result.mask_rle is not None:
            return one.result.mask_rle
        label_map = found.maps[n]
        assert isinstance(label_map, np.ndarray)
        return mask_rle(label_map, self.models.segmenter.classes, width, height)


def model_input(rgb: RGB, face: Face | ModelFailure, kind: InputKind) -> RGB:
    """Return the input that a model declares: the photo, the face, or the face with only its skin.

    The face is cropped at full resolution. In a `masked_crop`, all pixels but skin are zero.
    """
    assert isinstance(face, Face)
    if kind == "image":
        return rgb
    assert face.crop is not None
    x1, y1, x2, y2 = face.crop
    crop = rgb[y1:y2, x1:x2]
    if kind == "masked_crop":
        crop = crop * skin_in_crop(face)[..., None]
    return np.ascontiguousarray(crop)


def _in_original(found: Detections, face: Face, kind: InputKind) -> Detections:
    """Return boxes of a crop in pixels of the displayed original, clipped, without empty ones."""
    xyxy = found.xyxy.astype(np.float32)
    if kind != "image":
        assert face.crop is not None
        xyxy = xyxy + np.array([face.crop[0], face.crop[1]] * 2, np.float32)
    xyxy = np.clip(xyxy, 0, np.array([face.width, face.height] * 2, np.float32))
    kept = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
    return Detections(xyxy[kept], found.scores[kept], found.labels[kept], found.saturated)


def _top_class(classifier: Classifier, values: NDArray[np.float32]) -> str | None:
    best = int(np.argmax(values))
    return (
        classifier.classes[best]
        if classifier.head == "disease" and values[best] >= classifier.threshold
        else None
    )
