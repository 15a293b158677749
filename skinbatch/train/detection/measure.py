"""Measure a detector on validation photos, while it is trained and at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.train.detection.clone_trial import (
    SeenFace,
    cloned_faces,
    judge,
    quiet_threshold,
    see,
)
from skinbatch.train.detection.detection_data import DetectionData
from skinbatch.train.detection.scaled_photos import BoxedPhoto
from skinbatch.train.detection.scores import DetectedPhotos, detect, make_detector, spread
from skinbatch.train.fitting.course import Weights
from skinbatch.train.recipe import Recipe
from skinbatch.train.results.result import Metric
from skinbatch.types import Detections

# Number of validation photos in every evaluation but the last, which takes all, and of training
# photos for its threshold.
WATCHED = 96
# Number of training photos for the final threshold.
FOR_THRESHOLD = 283


def evaluation(
    recipe: Recipe, data: DetectionData, spec: DetectorSpec, device: torch.device
) -> Callable[[Weights], dict[str, float]]:
    """Return a function that computes the numbers of an evaluation while training."""
    clone, seed = recipe.clone, recipe.seed
    watched, known = spread(data.valid, WATCHED), spread(data.train, WATCHED)

    def evaluate(weights: Weights) -> dict[str, float]:
        detector = make_detector(spec, weights, device)
        learned = DetectedPhotos.of(known, detect(detector, known))
        seen = DetectedPhotos.of(watched, detect(detector, watched))
        threshold = learned.best_threshold()
        ap50, cloned = seen.ap50(), dict[str, float]()
        score = ap50
        if clone is not None and data.held_clear:
            faces = cloned_faces(data.held_clear, data.valid, spec, clone, seed)
            trial = judge(see(detector, faces), threshold)
            score = (ap50 + trial.lesions - trial.plain) / 2
            cloned = {
                "ap50": round(ap50, 4),
                "clones": round(trial.lesions, 4),
                "plain": round(trial.plain, 4),
                "clear_boxes": round(trial.clear_boxes, 3),
            }
        return {
            "score": round(score, 4),
            **cloned,
            "count_mae": round(seen.count_mae(threshold), 3),
            "train_count_mae": round(learned.count_mae(threshold), 3),
            "threshold": threshold,
        }

    return evaluate


def measure(
    recipe: Recipe,
    spec: DetectorSpec,
    weights: Weights,
    data: DetectionData,
    device: torch.device,
) -> tuple[float, list[Metric]]:
    """Return the threshold and the validation numbers.

    The threshold has the best counts on training photos, unless [clone] asks for a higher one.
    """
    detector = make_detector(spec, weights, device)
    chosen = spread(data.train, FOR_THRESHOLD)
    threshold = DetectedPhotos.of(chosen, detect(detector, chosen)).best_threshold()
    clone, faces = recipe.clone, list[SeenFace]()
    if clone is not None and data.held_clear:
        faces = see(
            detector,
            cloned_faces(data.held_clear, data.valid, spec, clone, recipe.seed),
        )
        threshold = quiet_threshold(faces, threshold, clone)

    detections = detect(detector, data.valid)
    scored = DetectedPhotos.of(data.valid, detections)
    metrics = scored.metrics(threshold, spec.classes)
    guess = float(np.mean([len(photo.boxes) for photo in data.train]))
    off = float(np.abs(scored.truth.per_photo() - guess).mean())
    metrics.append(Metric("count MAE of guessing the training mean", off, photos=len(data.valid)))
    metrics += by_source(data.valid, detections, threshold, spec.classes)

    if faces:
        trial = judge(faces, threshold)
        metrics.append(Metric("cloned lesions that are counted", trial.lesions, photos=trial.faces))
        metrics.append(Metric("cloned plain skin that is counted", trial.plain, photos=trial.faces))
    if data.held_clear:
        alarms = [
            int((detections.scores >= threshold).sum())
            for detections in detect(detector, data.held_clear)
        ]
        metrics.append(
            Metric("boxes a photo without lesions", float(np.mean(alarms)), photos=len(alarms))
        )
    return threshold, metrics


def by_source(
    photos: Sequence[BoxedPhoto],
    detections: Sequence[Detections],
    threshold: float,
    classes: Sequence[str],
) -> list[Metric]:
    """Return AP50 and count error of the photos of each source, if there are several sources."""
    sources = dict.fromkeys(photo.source for photo in photos)
    made: list[Metric] = []
    for name in sources if len(sources) > 1 else ():
        here = [n for n, photo in enumerate(photos) if photo.source == name]
        scored = DetectedPhotos.of([photos[n] for n in here], [detections[n] for n in here])
        numbers = {
            metric.name: metric for metric in scored.metrics(threshold, classes) if not metric.of
        }
        made += [replace(numbers[key], of=name) for key in ("AP50", "count MAE") if key in numbers]
    return made
