"""Measure how well a detector finds and counts, run as a pack runs it.

It is the pack's own detector, with weights rounded as they are stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_dist_info
from numpy.typing import NDArray
from torch import Tensor

from skinbatch.metrics.bootstrap import Estimate, Resampling
from skinbatch.metrics.boxes import Boxes
from skinbatch.metrics.counts import count_error
from skinbatch.metrics.detection import curves, detection, match
from skinbatch.models.detectors.mmdet.detector import MMDetDetector
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.train.detection.scaled_photos import BoxedPhoto
from skinbatch.train.photos.groups import group_numbers
from skinbatch.train.photos.photo_store import decoded
from skinbatch.train.results.result import Metric
from skinbatch.types import Detections

Ints = NDArray[np.int64]

THRESHOLDS: Sequence[float] = np.arange(0.05, 0.951, 0.005).round(3).tolist()
# Named by the digit in ACNE04's `levleN_`.
SEVERITIES = ("mild", "moderate", "severe", "very_severe")
_AT_ONCE = 8


def make_detector(
    spec: DetectorSpec, weights: Mapping[str, Tensor], device: torch.device
) -> MMDetDetector:
    """Return a detector with the weights rounded to half precision."""
    stored = {
        name: value.half() if value.is_floating_point() else value
        for name, value in weights.items()
    }
    return MMDetDetector(spec, stored, device=str(device))


def detect(detector: MMDetDetector, photos: Sequence[BoxedPhoto]) -> list[Detections]:
    """Return the detections on photos as read from their files, decoded ahead.

    Workers share the photos; each gets the detections on all of them.
    """
    rank, world = get_dist_info()
    pixels = decoded([photo.stored for photo in photos[rank::world]], lambda _, pixels: pixels)
    own: list[Detections] = []
    while batch := list(islice(pixels, _AT_ONCE)):
        own += detector(batch)
    shares = all_gather_object(own)
    return [shares[n % world][n // world] for n in range(len(photos))]


@dataclass(frozen=True, slots=True)
class DetectedPhotos:
    """Hold photos and what was found on them, as arrays."""

    photos: Sequence[BoxedPhoto]
    truth: Boxes
    crowds: Boxes
    predicted: Boxes

    @classmethod
    def of(cls, photos: Sequence[BoxedPhoto], detections: Sequence[Detections]) -> DetectedPhotos:
        truth = Boxes.stack([p.boxes for p in photos], labels=[p.labels for p in photos])
        crowds = Boxes.stack([p.crowds for p in photos], labels=[p.crowd_labels for p in photos])
        boxes = Boxes.stack(
            [d.xyxy for d in detections],
            [d.scores for d in detections],
            [d.labels for d in detections],
        )
        return cls(photos, truth, crowds, boxes)

    def ap50(self) -> float:
        """Return AP50, the mean over classes with true boxes; 0 without any true box."""
        labels = np.unique(self.truth.label)
        values = [float(curves(match(*self._of_class(label))).numbers[0]) for label in labels]
        return float(np.mean(values)) if values else 0.0

    def counts(self, threshold: float) -> tuple[Ints, Ints]:
        """Return (N,) true and predicted boxes of each photo, whatever their class."""
        counted = self.predicted.only(self.predicted.score >= threshold)
        return self.truth.per_photo(), counted.per_photo()

    def count_mae(self, threshold: float) -> float:
        truth, counted = self.counts(threshold)
        return float(np.abs(counted - truth).mean())

    def best_threshold(self) -> float:
        """Return the threshold with the best counts."""
        return min(THRESHOLDS, key=self.count_mae)

    def metrics(self, threshold: float, classes: Sequence[str]) -> list[Metric]:
        """Return AP and recall merged and by class, count errors merged and by severity.

        Bootstrap intervals are over groups.
        """
        how, groups = Resampling(), self._groups()
        number = len(self.photos)
        made: list[Metric] = []
        values = detection({"": match(self.truth, self.predicted, self.crowds)}, how, groups=groups)
        if len(classes) > 1:
            values |= detection(
                {name: match(*self._of_class(n)) for n, name in enumerate(classes)},
                how,
                groups=groups,
            )
        for name in ("", *(name for name in classes if name in values)):
            made += [
                _metric(title, values[name][key], name, number) for key, title in _TITLES.items()
            ]
        truth_counts, found_counts = self.counts(threshold)
        errors = count_error(truth_counts, found_counts, how, groups=groups)
        made += [_metric(title, errors[key], "", number) for key, title in _COUNTS.items()]
        severities = np.array(
            [-1 if photo.severity is None else photo.severity for photo in self.photos]
        )
        for level, name in enumerate(SEVERITIES):
            if (here := severities == level).any():
                inner = None if groups is None else groups[here]
                error = count_error(truth_counts[here], found_counts[here], how, groups=inner)[
                    "mae"
                ]
                made.append(_metric("count MAE", error, name, int(here.sum())))
        # Without a true box there is no AP.
        return [metric for metric in made if np.isfinite(metric.value)]

    def _of_class(self, label: int) -> tuple[Boxes, Boxes, Boxes]:
        truth, detections, crowds = (
            each.only(each.label == label) for each in (self.truth, self.predicted, self.crowds)
        )
        return truth, detections, crowds

    def _groups(self) -> Ints | None:
        return group_numbers(
            [photo.group for photo in self.photos], [photo.stored.path for photo in self.photos]
        )


_TITLES = {"ap50": "AP50", "ap": "AP", "ar": "AR"}
_COUNTS = {"mae": "count MAE", "rmse": "count RMSE", "mean": "count bias"}


def _metric(name: str, estimate: Estimate, of: str, photos: int) -> Metric:
    low, high = (None if np.isnan(end) else end for end in (estimate.low, estimate.high))
    return Metric(name, estimate.value, of, low, high, photos)


def spread(photos: Sequence[BoxedPhoto], number: int) -> list[BoxedPhoto]:
    """Return `number` photos evenly over the sorted names, or all.

    In ACNE04, names begin with the severity.
    """
    by_name = sorted(photos, key=lambda photo: photo.stored.name)
    places = np.linspace(0, len(by_name) - 1, min(number, len(by_name))).round().astype(int)
    return [by_name[place] for place in places]
