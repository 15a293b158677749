"""How well a detector finds and counts, on annotated photos."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from skinbatch.types import Detections

Boxes = NDArray[np.float32]


def ap50(truth: Sequence[Boxes], found: Sequence[Detections]) -> float:
    """Average precision at IoU 0.5 of one class, pycocotools' 101 points, up to 500 boxes a photo."""
    gt = COCO()
    gt.dataset = {
        "images": [{"id": i} for i in range(len(truth))],
        "categories": [{"id": 1}],
        "annotations": [_annotation(i, box) | {"iscrowd": 0} for i, boxes in enumerate(truth) for box in boxes],
    }
    for number, annotation in enumerate(gt.dataset["annotations"], start=1):
        annotation["id"] = number
    results = [
        _annotation(i, box) | {"score": float(score)}
        for i, boxes in enumerate(found)
        for box, score in zip(boxes.xyxy, boxes.scores, strict=True)
    ]
    if not results or not gt.dataset["annotations"]:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        gt.createIndex()
        run = COCOeval(gt, gt.loadRes(results), "bbox")
        run.params.iouThrs = np.array([0.5])
        run.params.maxDets = [500]
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.evaluate()
        run.accumulate()
    return float(run.eval["precision"][0, :, 0, 0, 0].mean())


def count_mae(truth: Sequence[Boxes], found: Sequence[Detections], threshold: float) -> float:
    """Mean over photos of |boxes at or above the threshold - annotated boxes|."""
    counts = np.array([(d.scores >= threshold).sum() for d in found])
    return float(np.abs(counts - np.array([len(t) for t in truth])).mean())


def best_threshold(truth: Sequence[Boxes], found: Sequence[Detections]) -> tuple[float, float]:
    """The threshold between 0.05 and 0.95, in steps of 0.005, that counts best, and its mean absolute error."""
    errors = [(count_mae(truth, found, t), t) for t in np.arange(0.05, 0.951, 0.005).round(3).tolist()]
    error, threshold = min(errors)
    return threshold, error


def _annotation(image: int, box: Boxes) -> dict[str, object]:
    x1, y1, x2, y2 = (float(v) for v in box)
    size = [x2 - x1, y2 - y1]
    return {"image_id": image, "category_id": 1, "bbox": [x1, y1, *size], "area": size[0] * size[1]}
