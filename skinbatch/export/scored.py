"""Give out the boxes of a scored destination, one unit at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skinbatch.export.boxed import BoxedPhoto
from skinbatch.grading.counting import ON_SKIN
from skinbatch.runs.destination import read_scoring
from skinbatch.runs.results import Results
from skinbatch.types import Status

_IMAGES = ("image_id", "status", "width", "height")
_CORNERS = ("x1", "y1", "x2", "y2")
_BOXES = ("image_id", *_CORNERS, "score", "label", "skin_overlap", "counted")


class ScoredBoxes:
    """Give out the photos with status ok, with the boxes that count.

    threshold: a box with at least this score counts if its centre is on the skin; None: as graded.
    """

    def __init__(self, results: Results, threshold: float | None) -> None:
        scoring = read_scoring(results.store, results.fingerprint)
        self.class_names = scoring.classes if scoring is not None else ()
        self.complete = results.snapshot is not None
        self.left_out: Counter[str] = Counter()
        self._results, self._threshold = results, threshold

    def photos(self) -> Iterator[BoxedPhoto]:
        """Yield the photos in the order of the units' names, then of the tables."""
        for images, boxes in self._results.units(_IMAGES, _BOXES):
            yield from self._joined(images, boxes)

    def _joined(self, images: pa.Table, boxes: pa.Table) -> Iterator[BoxedPhoto]:
        kept = boxes.filter(pa.array(self._counts(boxes)))
        xyxy = np.stack([kept.column(name).to_numpy() for name in _CORNERS], axis=1).astype(np.float32)
        scores = kept.column("score").to_numpy().astype(np.float32)
        labels = kept.column("label").to_pylist()
        rows: dict[str, list[int]] = {}
        for row, image_id in enumerate(kept.column("image_id").to_pylist()):
            rows.setdefault(image_id, []).append(row)
        columns = (images.column(name).to_pylist() for name in _IMAGES)
        for image_id, status, width, height in zip(*columns, strict=True):
            if status != Status.OK:
                self.left_out[status] += 1
                continue
            mine = rows.get(image_id, [])
            yield BoxedPhoto(image_id, width, height, xyxy[mine], tuple(labels[n] for n in mine), scores[mine])

    def _counts(self, boxes: pa.Table) -> NDArray[np.bool_]:
        if self._threshold is None:
            return np.asarray(boxes.column("counted").to_numpy(), np.bool_)
        # In double precision, as in the grading: 0.7 in single precision is less than 0.7.
        scores = boxes.column("score").to_numpy().astype(np.float64)
        overlaps = boxes.column("skin_overlap").to_numpy().astype(np.float64)
        return np.asarray((scores >= self._threshold) & (overlaps >= ON_SKIN), np.bool_)
