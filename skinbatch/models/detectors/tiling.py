"""Detect lesions in large photos with any detector, in overlapping tiles at native resolution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from skinbatch.models.detectors.seams import TileBoxes, merge
from skinbatch.models.protocols import Detector, InputKind
from skinbatch.models.stages import TilingSection
from skinbatch.types import Detections

Photo = NDArray[np.uint8]
Frame = tuple[int, int, int, int]

CPU_BATCH = 2
GPU_BATCH = 32


class TiledDetector:
    """Implement the `Detector` protocol over another detector, with tiles for large photos.

    Photos whose longer side is over `tiling.above` are cut into tiles; others are passed on
    unchanged.

    The detector treats a tile like a photo: it is scaled to the detector's own input size. If
    `tile` is that size, it is seen pixel by pixel. Smaller tiles are enlarged as far as
    `max_upscale` allows, and larger ones are shrunk.

    Tiles of all photos of a call are run together, `batch` at a time, and `on_tiles` is called
    after each time. Threads may share it if they may share the detector.
    """

    def __init__(
        self,
        detector: Detector,
        tiling: TilingSection,
        nms_iou: float,
        max_boxes: int,
        batch: int = CPU_BATCH,
    ) -> None:
        """Put tiles over a detector.

        nms_iou: IoU from which two boxes of a class are one. max_boxes: most boxes of a photo.
        """
        self.classes = detector.classes
        self.input: InputKind = detector.input
        self._detector = detector
        assert tiling.tile is not None
        self._tiling, self._tile = tiling, tiling.tile
        self._nms_iou = nms_iou
        self._max_boxes = max_boxes
        self._batch = batch
        self.on_tiles: Callable[[], None] = lambda: None

    def __call__(self, photos: Sequence[Photo]) -> list[Detections]:
        """Return the boxes of each photo, see Detector.

        `saturated` is also set if one of the tiles was saturated.
        """
        large = [i for i, photo in enumerate(photos) if max(photo.shape[:2]) > self._tiling.above]
        small = [i for i in range(len(photos)) if i not in set(large)]
        detections = (
            dict(zip(small, self._detector([photos[i] for i in small]), strict=True))
            if small
            else {}
        )
        frames = {i: tiles(photos[i].shape[:2], self._tile, self._tiling.overlap) for i in large}
        in_tiles = iter(self._run([(photos[i], frame) for i in large for frame in frames[i]]))
        for i in large:
            detections[i] = self._merged(
                [next(in_tiles) for _ in frames[i]], frames[i], photos[i].shape[:2]
            )
        return [detections[i] for i in range(len(photos))]

    def _run(self, cuts: list[tuple[Photo, Frame]]) -> list[Detections]:
        detections: list[Detections] = []
        for start in range(0, len(cuts), self._batch):
            some = cuts[start : start + self._batch]
            detections += self._detector(
                [np.ascontiguousarray(photo[y1:y2, x1:x2]) for photo, (x1, y1, x2, y2) in some]
            )
            self.on_tiles()
        return detections

    def _merged(
        self, detections: list[Detections], frames: list[Frame], shape: tuple[int, ...]
    ) -> Detections:
        corners = np.array(frames, np.float32)
        edges = np.array([0, 0, shape[1], shape[0]], np.float32)
        boxes = TileBoxes(
            xyxy=np.concatenate(
                [f.xyxy + np.tile(c[:2], 2) for f, c in zip(detections, corners, strict=True)]
            ),
            scores=np.concatenate([f.scores for f in detections]),
            labels=np.concatenate([f.labels for f in detections]),
            tile=np.repeat(np.arange(len(detections)), [len(f) for f in detections]),
            tiles=corners,
            inner=corners != edges,
        )
        xyxy, scores, labels = merge(boxes, self._nms_iou)
        cap = self._max_boxes
        return Detections(
            xyxy[:cap],
            scores[:cap],
            labels[:cap],
            len(scores) >= cap or any(f.saturated for f in detections),
        )


def tiles(shape: tuple[int, ...], side: int, overlap: float) -> list[Frame]:
    """Return x1 y1 x2 y2 of tiles that cover a photo of that (height, width), row by row.

    There are as few tiles as have at least `overlap` of their side in common, spread evenly. Along
    an axis that is shorter than `side` there is one.
    """
    rows, columns = (_starts(length, side, overlap) for length in shape)
    height, width = shape
    return [(x, y, min(x + side, width), min(y + side, height)) for y in rows for x in columns]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if length <= side:
        return [0]
    common = math.ceil(side * overlap)
    steps = math.ceil((length - side) / (side - common))
    return [round(i * (length - side) / steps) for i in range(steps + 1)]
