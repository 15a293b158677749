"""Turn the models' outputs for a photo into its result: counts, grade, top class and masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from skinbatch.config import Config
from skinbatch.grading.grade import grade
from skinbatch.grading.quality import face_quality
from skinbatch.grading.run_lengths import mask_rle
from skinbatch.models.protocols import Classifier, Models
from skinbatch.runs.reused_stages import DETECTOR, SEGMENTER
from skinbatch.scoring.failures import ModelFailure
from skinbatch.scoring.inference import Inferred, Probs, columns_of
from skinbatch.types import Detections, ImageResult, Status


class PhotoResults:
    """Count and grade without running a model. threshold: the score from which a box is counted."""

    def __init__(self, models: Models, config: Config, threshold: float) -> None:
        self._models = models
        self._config = config
        self._threshold = threshold
        self._columns = columns_of(models.classifiers)

    def of(self, outputs: Inferred, n: int) -> ImageResult:
        """Return the result of photo `n` of a batch."""
        rgb, face, boxes = outputs.photos[n], outputs.faces[n], outputs.detections[n]
        height, width = rgb.shape[:2]
        if isinstance(face, ModelFailure):
            return _failed(face, width, height)
        if isinstance(boxes, ModelFailure):
            return _failed(boxes, width, height)

        named = self._probabilities(outputs, n)
        if isinstance(named, ModelFailure):
            return _failed(named, width, height)
        probabilities, top = named

        masks = self._masks(outputs, n, width, height) if self._config.run.save_masks else None
        earlier = outputs.earlier[n]
        stages = frozenset() if earlier is None else earlier.stages
        if earlier is not None and DETECTOR in stages:
            return replace(
                earlier.result, probs=probabilities, top_class=top, mask_rle=masks, taken=stages
            )

        quality = face_quality(rgb, face)
        graded = grade(
            boxes if boxes is not None else Detections.empty(),
            self._models.detector.classes,
            face,
            self._config.grading,
            self._threshold,
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
            probs=probabilities,
            top_class=top,
            boxes=graded.boxes,
            mask_rle=masks,
            taken=stages,
        )

    def _probabilities(
        self, outputs: Inferred, n: int
    ) -> tuple[dict[str, float], str | None] | ModelFailure:
        """Return column -> probability for photo `n`, and the top class of the first classifier
        that looked at it; or the failure of a classifier.
        """
        columns: dict[str, float] = {}
        top: str | None = None
        for classifier, names, probs in zip(
            self._models.classifiers, self._columns, outputs.probs, strict=True
        ):
            values = probs[n]
            if isinstance(values, ModelFailure):
                return values
            if values is None:
                continue

            columns |= {names[c]: float(v) for c, v in zip(classifier.classes, values, strict=True)}
            if top is None:
                top = _top_class(classifier, values)
        return columns, top

    def _masks(self, outputs: Inferred, n: int, width: int, height: int) -> Mapping[str, bytes]:
        earlier = outputs.earlier[n]
        masks = None if earlier is None else earlier.result.mask_rle
        if earlier is not None and SEGMENTER in earlier.stages and masks is not None:
            return masks

        label_map = outputs.maps[n]
        assert isinstance(label_map, np.ndarray)
        return mask_rle(label_map, self._models.segmenter.classes, width, height)


def _failed(failure: ModelFailure, width: int, height: int) -> ImageResult:
    return ImageResult(Status.MODEL_ERROR, failure.message, width=width, height=height)


def _top_class(classifier: Classifier, values: Probs) -> str | None:
    best = int(np.argmax(values))
    return (
        classifier.classes[best]
        if classifier.head == "disease" and values[best] >= classifier.threshold
        else None
    )
