"""Measure boxes whose drawn extents are noisy: average precision at any IoU, and by the centre."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from skinbatch.metrics.boxes import Boxes, xywh
from skinbatch.metrics.detection import RECALLS

Floats = NDArray[np.float64]
# Found and true boxes of a photo -> how well each pair fits.
Fit = Callable[[Floats, Floats], Floats]


def average_precision(truth: Boxes, predicted: Boxes, iou: float) -> float:
    """Return COCO's average precision of the boxes of one class at one IoU, however low.

    It is NaN without true boxes.

    Example:
        >>> import numpy as np
        >>> one = Boxes.stack([np.array([[0, 0, 10, 10]])])
        >>> float(average_precision(one, one, 0.3))
        1.0
    """

    def fit(boxes: Floats, true_boxes: Floats) -> Floats:
        overlaps = coco.iou(xywh(boxes), xywh(true_boxes), [0] * len(true_boxes))
        return np.asarray(overlaps, np.float64).reshape(len(boxes), len(true_boxes))

    return _precision(truth, predicted, fit, iou)


def centre_precision(truth: Boxes, predicted: Boxes) -> float:
    """Return the average precision if a box is right when its centre lies in the true box.

    It is NaN without true boxes.
    """

    def fit(boxes: Floats, true_boxes: Floats) -> Floats:
        centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
        inside = (centres >= true_boxes[None, :, :2]) & (centres <= true_boxes[None, :, 2:])
        away = np.linalg.norm(
            centres - (true_boxes[None, :, :2] + true_boxes[None, :, 2:]) / 2, axis=2
        )
        return np.where(inside.all(2), 1 / (1 + away), 0.0)

    return _precision(truth, predicted, fit, 1e-9)


def _precision(truth: Boxes, predicted: Boxes, fit: Fit, least: float) -> float:
    """Return the average precision. least: smallest fit of a right box."""
    if not len(truth):
        return float("nan")
    right = np.zeros(len(predicted), np.bool_)
    for photo in range(truth.photos):
        mine = np.flatnonzero(predicted.photo == photo)
        true_boxes = truth.xyxy[truth.photo == photo]
        if not len(mine) or not len(true_boxes):
            continue
        mine = mine[np.argsort(-predicted.score[mine], kind="stable")]
        fits = fit(predicted.xyxy[mine], true_boxes)
        for n, row in zip(mine.tolist(), fits, strict=True):
            best = int(row.argmax())
            if row[best] >= least:
                right[n] = True
                fits[:, best] = 0
    hits = right[np.argsort(-predicted.score, kind="stable")]
    recall = np.cumsum(hits) / len(truth)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, RECALLS, side="left")
    reached = at < len(envelope)
    return float(
        np.where(
            reached, envelope[np.minimum(at, len(envelope) - 1)] if len(envelope) else 0.0, 0.0
        ).mean()
    )
