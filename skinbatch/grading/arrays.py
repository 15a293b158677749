"""Count the lesions of many photos at once, from flat arrays of stored boxes.

The result is the same as that of `counting.count_lesions` for each photo. A million boxes take
well under a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from skinbatch.grading.counting import ON_SKIN, Method

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Values of BoxArrays.side.
NO_SIDE, LEFT, RIGHT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class BoxArrays:
    """Hold the boxes of many photos, one entry for each box.

    photo: (N,) int64 index of the photo. xyxy: (N, 4) pixels. score: (N,). label: (N,) int64 index
    of the class. side: (N,) NO_SIDE, LEFT or RIGHT. skin_overlap: (N,) 0-1, NaN if unknown.
    """

    photo: Ints
    xyxy: Floats
    score: Floats
    label: Ints
    side: Ints
    skin_overlap: Floats

    def counted(self, threshold: float) -> NDArray[np.bool_]:
        """Return (N,) whether each box counts: score at or above the threshold, centre on skin."""
        # NaN compares as false, as an unknown overlap should.
        return np.asarray((self.score >= threshold) & (self.skin_overlap >= ON_SKIN), np.bool_)

    def only(self, keep: NDArray[np.bool_]) -> BoxArrays:
        """Return the boxes where `keep` is true."""
        return BoxArrays(
            self.photo[keep],
            self.xyxy[keep],
            self.score[keep],
            self.label[keep],
            self.side[keep],
            self.skin_overlap[keep],
        )


@dataclass(frozen=True, slots=True)
class PhotoCounts:
    """Hold lesion counts of P photos. total, left, right: (P,). by_class: (P, C)."""

    total: Ints
    left: Ints
    right: Ints
    by_class: Ints


def count_photos(
    boxes: BoxArrays, photos: int, classes: int, threshold: float, method: Method
) -> PhotoCounts:
    """Count the lesions of each photo.

    Args:
        boxes: all stored boxes; those that count are selected by `threshold`.
        photos: number of photos, including those without boxes.
        classes: number of classes.
        method: see `counting.count_lesions`.
    """
    kept = boxes.only(boxes.counted(threshold))
    if method == "boxes":
        photo, label, side = kept.photo, kept.label, kept.side
    else:
        photo, label, side = _components(kept, classes)

    by_class = np.bincount(photo * classes + label, minlength=photos * classes)
    return PhotoCounts(
        total=np.bincount(photo, minlength=photos).astype(np.int64),
        left=np.bincount(photo[side == LEFT], minlength=photos).astype(np.int64),
        right=np.bincount(photo[side == RIGHT], minlength=photos).astype(np.int64),
        by_class=by_class.reshape(photos, classes).astype(np.int64),
    )


def _components(boxes: BoxArrays, classes: int) -> tuple[Ints, Ints, Ints]:
    """Return photo, class and side of each connected piece of the mask that the boxes make."""
    number = len(boxes.photo)
    if not number:
        empty = np.zeros(0, np.int64)
        return empty, empty, empty

    one, other = _touching_pairs(boxes.photo, boxes.xyxy)
    graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(number, number))
    pieces, piece = connected_components(graph, directed=False)

    # Within a piece, boxes vote by falling score, so that the first of equal votes is the best box.
    order = np.argsort(-boxes.score, kind="stable")
    photo = np.zeros(pieces, np.int64)
    photo[piece] = boxes.photo
    label = _majority(piece[order], boxes.label[order], pieces, classes)
    side = _majority(piece[order], boxes.side[order], pieces, RIGHT + 1)
    return photo, label, side


def _touching_pairs(photo: Ints, xyxy: Floats) -> tuple[Ints, Ints]:
    """Return the index pairs of boxes of one photo whose pixels overlap or are neighbours."""
    corners = np.rint(xyxy)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)

    # Sort by photo and left edge. A box can only touch the boxes after it that begin before it ends.
    order = np.lexsort((corners[:, 0], photo))
    photo, corners = photo[order], corners[order]
    width = corners[:, 2].max() - min(corners[:, 0].min(), 0.0) + 2
    start = photo * width + corners[:, 0]
    last = np.searchsorted(start, photo * width + corners[:, 2], side="right")

    candidates = last - np.arange(len(photo)) - 1
    one = np.repeat(np.arange(len(photo)), candidates)
    other = (
        one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(candidates) - candidates, candidates)
    )

    meet = (photo[one] == photo[other]) & (corners[one, 1] <= corners[other, 3])
    meet &= corners[other, 1] <= corners[one, 3]
    return order[one[meet]], order[other[meet]]


def _majority(group: Ints, value: Ints, groups: int, values: int) -> Ints:
    """Return (groups,) the most frequent value of each group; of equally frequent ones the first."""
    cell = group * values + value
    count = np.bincount(cell, minlength=groups * values)
    first = np.full(groups * values, len(cell), np.int64)
    np.minimum.at(first, cell, np.arange(len(cell)))

    # More votes win; among equal votes the earlier first vote wins.
    rank = count * (len(cell) + 1) - first
    rank[count == 0] = np.iinfo(np.int64).min
    return np.asarray(rank.reshape(groups, values).argmax(axis=1), np.int64)
