"""Merge boxes of overlapping tiles into boxes of the photo.

A lesion that several tiles saw becomes one box, and a lesion cut by a seam is joined.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]
Mask = NDArray[np.bool_]

LEFT, TOP, RIGHT, BOTTOM = range(4)
# A side, the neighbour's side that it meets, and the axis along which the two follow each other.
FACING = ((RIGHT, LEFT, 0), (BOTTOM, TOP, 1))
OUTWARD = np.array([-1, -1, 1, 1], np.float32)

# A box that ends within this share of its width or height from a tile's edge may have been cut by
# it: detectors miss the edge by about that much. It is harmless to count a whole box as cut,
# because it then meets the same box of the neighbour.
NEAR = 0.25
NEAR_PIXELS = 2.0
# Boxes of one class from two tiles with this IoU are the same lesion, even if a stricter limit
# holds within a tile: two tiles agree less on a small lesion than the candidates of one tile do.
SAME_IOU = 0.3
# The share of a cut box that a whole one covers if both show the same lesion.
SEEN = 0.3
# The share of a cut box that lies in a larger box if both show the same lesion.
INSIDE = 0.5
# The share of the shorter of two cut edges, along the seam, that both have in common if they show
# the same lesion.
ALIGNED = 0.5


@dataclass(frozen=True, slots=True)
class TileBoxes:
    """Hold the boxes from the tiles of one photo, in pixels of the photo.

    xyxy: (N, 4). scores, labels: (N,). tile: (N,) indices into tiles: (T, 4) x1 y1 x2 y2. inner:
    (T, 4), whether that side of a tile has a neighbour beyond it.
    """

    xyxy: Boxes
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    tile: NDArray[np.int64]
    tiles: Boxes
    inner: Mask

    def __getitem__(self, rows: NDArray[np.int64] | Mask) -> TileBoxes:
        return replace(
            self,
            xyxy=self.xyxy[rows],
            scores=self.scores[rows],
            labels=self.labels[rows],
            tile=self.tile[rows],
        )

    def with_(self, more: TileBoxes) -> TileBoxes:
        """Return these boxes, then `more` of the same tiles."""
        return replace(
            self,
            xyxy=np.concatenate([self.xyxy, more.xyxy]),
            scores=np.concatenate([self.scores, more.scores]),
            labels=np.concatenate([self.labels, more.labels]),
            tile=np.concatenate([self.tile, more.tile]),
        )

    @property
    def cut(self) -> Mask:
        """Return (N, 4): which sides of a box may be cut by an inner side of its tile.

        Such a side is so near the tile's that the lesion may continue beyond it.
        """
        return self.inner[self.tile] & (
            margins(self.xyxy, self.tiles[self.tile]) <= reach(self.xyxy)
        )


def merge(boxes: TileBoxes, nms_iou: float) -> tuple[Boxes, NDArray[np.float32], NDArray[np.int64]]:
    """Return boxes, scores and labels of the photo, best first. Each class is merged by itself."""
    parts = []
    for label in np.unique(boxes.labels):
        of_class = boxes[boxes.labels == label]
        xyxy, scores = _merge_class(of_class[np.argsort(-of_class.scores, kind="stable")], nms_iou)
        parts.append((xyxy, scores, np.full(len(scores), label, np.int64)))
    if not parts:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    xyxy, scores, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(-scores, kind="stable")
    return xyxy[order], scores[order], labels[order]


def _merge_class(boxes: TileBoxes, nms_iou: float) -> tuple[Boxes, NDArray[np.float32]]:
    """Merge the boxes of one class. boxes: best first."""
    same_iou = min(nms_iou, SAME_IOU)
    is_cut: Mask = np.asarray(boxes.cut.any(1))
    whole, cut = boxes[~is_cut], boxes[is_cut]
    joined, scores = _joined(cut[~_seen_better(cut, whole)])
    whole = whole[_distinct(whole.xyxy, whole.tile, same_iou)]
    xyxy, scores = np.concatenate([whole.xyxy, joined]), np.concatenate([whole.scores, scores])
    origin = np.concatenate([whole.tile, len(boxes.tiles) + np.arange(len(joined))])
    lost = np.zeros(len(xyxy), bool)
    for row in range(len(whole.xyxy), len(xyxy)):
        area = _area(xyxy[row])
        lost[row] = ((_intersection(xyxy[row], xyxy) > INSIDE * area) & (_area(xyxy) > area)).any()
    order = np.argsort(-scores, kind="stable")
    order = order[~lost[order]]
    kept = order[_distinct(xyxy[order], origin[order], same_iou)]
    return xyxy[kept], scores[kept]


def _distinct(xyxy: Boxes, tile: NDArray[np.int64], iou: float) -> NDArray[np.int64]:
    """Return the rows to keep of boxes that are sorted best first.

    Each box suppresses those that overlap it in other tiles. Within a tile the detector has
    decided, which keeps neighbouring lesions apart.
    """
    left = np.ones(len(xyxy), bool)
    areas = _area(xyxy)
    for row in range(len(xyxy)):
        if left[row]:
            common = _intersection(xyxy[row], xyxy)
            same = common >= iou * (areas + areas[row] - common)
            left[same & (tile != tile[row])] = False
    return np.flatnonzero(left)


def _seen_better(cut: TileBoxes, whole: TileBoxes) -> Mask:
    """Return which cut boxes another tile saw better.

    Such a box lies wholly in another tile that continues where the box is cut. That tile has a box
    there that is not cut on a side where the first tile continues further.
    """
    others = cut.with_(whole)
    cuts, other_cuts = cut.cut, others.cut
    frames, outer = others.tiles[others.tile], ~others.inner[others.tile]
    near = reach(cut.xyxy)
    far = reach(others.xyxy)
    better = np.zeros(len(cut.xyxy), bool)
    for row, box in enumerate(cut.xyxy):
        grown = box + np.where(cuts[row], np.maximum(near[row], far), 0) * OUTWARD
        covered = _intersection(grown, others.xyxy) >= SEEN * _area(grown)
        beyond = margins(cut.tiles[cut.tile[row]], frames)
        gains = (cuts[row] & (beyond > 0)).any(1)
        loses = (other_cuts & ~cuts[row] & (beyond < 0)).any(1)
        room = margins(box, frames)
        shown = (outer | (room > np.where(cuts[row], -NEAR_PIXELS, near[row]))).all(1)
        better[row] = (covered & shown & gains & ~loses).any()
    return better


def _joined(cut: TileBoxes) -> tuple[Boxes, NDArray[np.float32]]:
    """Join cut boxes that meet across a seam: their union, with the best score. Others stay."""
    cuts, frames = cut.cut, cut.tiles[cut.tile]
    group = np.arange(len(cut.xyxy))
    for row, box in enumerate(cut.xyxy):
        overlap = _overlap(box, cut.xyxy)
        extent = np.minimum(box[2:] - box[:2], cut.xyxy[:, 2:] - cut.xyxy[:, :2])
        for side, facing, axis in FACING:
            follows = (frames[:, axis] > frames[row, axis]) & (overlap[:, axis] > 0)
            aligned = overlap[:, 1 - axis] >= ALIGNED * extent[:, 1 - axis]
            for other in np.flatnonzero(cuts[row, side] & cuts[:, facing] & follows & aligned):
                group[group == group[other]] = group[row]
    names = np.unique(group)
    members = [group == name for name in names]
    xyxy = [np.r_[cut.xyxy[m, :2].min(0), cut.xyxy[m, 2:].max(0)] for m in members]
    return np.array(xyxy, np.float32).reshape(-1, 4), np.array(
        [cut.scores[m].max() for m in members], np.float32
    )


def margins(xyxy: Boxes, frames: Boxes) -> Boxes:
    """Return how far each side of a box lies inside the same side of its frame, in pixels: (N, 4).

    One of boxes and frames may be a single (4,).
    """
    return np.asarray((frames - xyxy) * OUTWARD, np.float32)


def reach(xyxy: Boxes) -> Boxes:
    """Return (N, 4): how near an edge each side of a box must be to count as cut by it."""
    size = np.maximum(NEAR * (xyxy[:, 2:] - xyxy[:, :2]), NEAR_PIXELS)
    return np.concatenate([size, size], 1)


def _overlap(box: Boxes, others: Boxes) -> Boxes:
    """Return (N, 2): common width and height, negative if the boxes lie apart.

    box: (4,), or (N, 4) for one each.
    """
    return np.minimum(box[..., 2:], others[:, 2:]) - np.maximum(box[..., :2], others[:, :2])


def _intersection(box: Boxes, others: Boxes) -> NDArray[np.float32]:
    return np.asarray(np.maximum(_overlap(box, others), 0).prod(1), np.float32)


def _area(xyxy: Boxes) -> NDArray[np.float32]:
    return np.asarray((xyxy[..., 2] - xyxy[..., 0]) * (xyxy[..., 3] - xyxy[..., 1]), np.float32)
