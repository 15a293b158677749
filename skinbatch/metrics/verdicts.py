"""Tell right, false and missed boxes apart, photo by photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from skinbatch.metrics.boxes import Boxes, xywh

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

# A found box is right if it overlaps a true one by this IoU, as in AP50.
SAME_LESION = 0.5


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Hold what became of found and true boxes.

    right: (F,) bool, found boxes that took a true one. ignored: (F,) bool, found boxes that are
    neither right nor false, because they lie in a crowd. taken: (T,) bool, true boxes that were
    found; the others were missed.
    """

    right: Bools
    ignored: Bools
    taken: Bools


@dataclass(frozen=True, slots=True)
class PhotoVerdict:
    """Hold the boxes of one photo by verdict, each (N, 4) float64, pixels of the displayed photo.

    right: found boxes that are true. false: found boxes that are not. found: true boxes that were
    found. missed: true boxes that were not. count: lesions as counted and graded.
    """

    image_id: str
    count: int
    right: Floats
    false: Floats
    found: Floats
    missed: Floats

    @property
    def true_count(self) -> int:
        return len(self.found) + len(self.missed)


def judge(truth: Boxes, predicted: Boxes, crowds: Boxes | None = None) -> Verdicts:
    """Match predicted boxes to true ones at one IoU, by the rules of `detection.match`.

    Labels are ignored.

    Example:
        >>> import numpy as np
        >>> one, none = Boxes.stack([np.array([[0, 0, 10, 10]])]), Boxes.stack([()])
        >>> judge(one, one).right, judge(one, none).taken
        (array([ True]), array([False]))
    """
    verdicts = Verdicts(
        *(np.zeros(number, np.bool_) for number in (len(predicted), len(predicted), len(truth)))
    )
    photos = np.arange(truth.photos + 1)
    starts, starts_of_truth = (
        np.searchsorted(predicted.photo, photos),
        np.searchsorted(truth.photo, photos),
    )
    boxes, true_boxes = xywh(predicted.xyxy), xywh(truth.xyxy)

    for n in np.flatnonzero((np.diff(starts) > 0) & (np.diff(starts_of_truth) > 0)).tolist():
        mine = np.arange(starts[n], starts[n + 1])
        mine = mine[np.argsort(-predicted.score[mine], kind="stable")]
        theirs = slice(starts_of_truth[n], starts_of_truth[n + 1])
        number = theirs.stop - theirs.start
        overlaps = np.asarray(coco.iou(boxes[mine], true_boxes[theirs], np.zeros(number, np.uint8)))
        for row in np.flatnonzero(overlaps.max(axis=1) >= SAME_LESION).tolist():
            # Among equal overlaps the later true box is taken, as in pycocotools.
            best = number - 1 - int(overlaps[row, ::-1].argmax())
            if overlaps[row, best] >= SAME_LESION:
                verdicts.right[mine[row]] = verdicts.taken[theirs.start + best] = True
                overlaps[:, best] = -1

    if crowds is not None and len(crowds):
        verdicts.ignored[:] = ~verdicts.right & _in_crowds(predicted, crowds)
    return verdicts


def _in_crowds(predicted: Boxes, crowds: Boxes) -> Bools:
    inside = np.zeros(len(predicted), np.bool_)
    for n in np.unique(crowds.photo).tolist():
        mine = np.flatnonzero(predicted.photo == n)
        regions = xywh(crowds.xyxy[crowds.photo == n])
        if len(mine):
            shares = coco.iou(xywh(predicted.xyxy[mine]), regions, np.ones(len(regions), np.uint8))
            inside[mine] = np.asarray(shares).max(axis=1) >= SAME_LESION
    return inside
