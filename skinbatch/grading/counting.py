"""Decide which boxes count, and how many lesions they are.

Counting uses rows of `boxes` alone, so that stored boxes can be counted again with another
threshold or method.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from skinbatch.grading.face import Face
from skinbatch.types import Detections, GradedBox, Side

Method = Literal["boxes", "components"]

# A box counts if at least this share of its centre region is skin.
ON_SKIN = 0.5
_T = TypeVar("_T")
# Where the centre region is sampled, as shares of the box's width and height.
_GRID = (np.arange(8, dtype=np.float32) + 0.5) / 8 * 0.5 + 0.25


@dataclass(frozen=True, slots=True)
class Counts:
    """Hold the lesion counts of one photo.

    left, right: of the nose in the displayed picture; None without a nose, as no box has a side
    then. by_class: every class of the detector. left + right equals total, and so does the sum of
    by_class.
    """

    total: int
    left: int | None
    right: int | None
    by_class: Mapping[str, int]


def skin_overlaps(xyxy: NDArray[np.float32], face: Face) -> NDArray[np.float32]:
    """Return (N,) the share of each box's centre region (its middle half each way) on the face's
    skin.

    The region is sampled at 8 x 8 points, because lesions are smaller than a pixel of the label
    map.

    xyxy: (N, 4) float32, pixels of the displayed original.
    """
    h, w = face.mask.shape
    xs = xyxy[:, :1] + (xyxy[:, 2:3] - xyxy[:, :1]) * _GRID
    ys = xyxy[:, 1:2] + (xyxy[:, 3:] - xyxy[:, 1:2]) * _GRID
    columns = np.clip(xs * (w / face.width), 0, w - 1).astype(np.intp)
    rows = np.clip(ys * (h / face.height), 0, h - 1).astype(np.intp)
    return np.asarray(
        face.mask[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2)), np.float32
    )


def mark_boxes(
    detections: Detections, detector_classes: Sequence[str], face: Face, threshold: float
) -> tuple[GradedBox, ...]:
    """Return every detection as a row of `boxes`, by falling score, with its place on the face.

    The side is decided by the box's centre and the vertical line through the nose's centroid; on
    the line is right. A line that follows a tilted head would need landmarks, which no model here
    gives.
    """
    order = np.argsort(-detections.scores, kind="stable")
    xyxy = detections.xyxy[order]
    overlaps = skin_overlaps(xyxy, face)
    # Convert whole arrays to plain numbers at once: a photo of severe acne has hundreds of boxes.
    scores, labels = detections.scores[order].tolist(), detections.labels[order].tolist()
    columns = zip(xyxy.tolist(), scores, labels, overlaps.tolist(), strict=True)
    return tuple(
        GradedBox(
            x1,
            y1,
            x2,
            y2,
            score,
            detector_classes[label],
            overlap,
            _side((x1 + x2) / 2, face),
            _counts(score, overlap, threshold),
        )
        for (x1, y1, x2, y2), score, label, overlap in columns
    )


def _counts(score: float, overlap: float | None, threshold: float) -> bool:
    return score >= threshold and overlap is not None and overlap >= ON_SKIN


def count_lesions(
    boxes: Sequence[GradedBox], classes: Sequence[str], method: Method, *, nose: bool
) -> Counts:
    """Count the lesions among the boxes that are `counted`.

    method: `boxes` counts each box. `components` counts the connected pieces of the mask that the
    boxes make together. A piece has the class and the side of most of its boxes; the best-scored
    box decides a tie. nose: whether the photo has a nose.
    """
    counted = sorted((b for b in boxes if b.counted), key=lambda b: -b.score)
    lesions = [[b] for b in counted] if method == "boxes" else _touching(counted)
    labels = Counter(_most(b.label for b in lesion) for lesion in lesions)
    sides = Counter(_most(b.side for b in lesion) for lesion in lesions)
    by_class = {name: labels[name] for name in classes}
    return Counts(
        len(lesions), sides["left"] if nose else None, sides["right"] if nose else None, by_class
    )


def _side(x: float, face: Face) -> Side | None:
    if face.nose is None:
        return None
    return "left" if x < face.nose[0] else "right"


def _touching(boxes: Sequence[GradedBox]) -> list[list[GradedBox]]:
    """Return groups of boxes whose pixels form one 8-connected piece, each in the given order.

    Rectangles of whole pixels are connected exactly if they overlap or are neighbours in x and in
    y. This gives the components of the mask without drawing it: a mask of 100 megapixels would take
    half a gigabyte.
    """
    xyxy = np.rint(np.array([[b.x1, b.y1, b.x2, b.y2] for b in boxes], np.float64).reshape(-1, 4))
    xyxy[:, 2:] = np.maximum(xyxy[:, 2:], xyxy[:, :2] + 1)
    starts_before_end = np.asarray((xyxy[:, None, :2] <= xyxy[None, :, 2:]).all(axis=2), np.bool_)
    meets = starts_before_end & starts_before_end.T
    groups: list[list[GradedBox]] = []
    left = np.ones(len(boxes), np.bool_)
    for first in range(len(boxes)):
        if not left[first]:
            continue
        group: NDArray[np.bool_] = np.zeros(len(boxes), np.bool_)
        group[first] = True
        while (grown := np.asarray(meets[group].any(axis=0), np.bool_)).sum() > group.sum():
            group = grown
        left &= ~group
        groups.append([boxes[n] for n in np.flatnonzero(group)])
    return groups


def _most(values: Iterable[_T]) -> _T:
    """Return the most frequent value; the first among equally frequent ones."""
    return Counter(values).most_common(1)[0][0]
