"""Give out the boxes of a scored destination, one unit at a time."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skinbatch.export.boxed import ExportedPhoto, Prediction
from skinbatch.grading.counting import ON_SKIN
from skinbatch.grading.uncertainty import uncertainty
from skinbatch.runs.destination import read_destination, read_scoring
from skinbatch.runs.results import Results
from skinbatch.runs.status import unfinished
from skinbatch.selection.choose import Chosen
from skinbatch.types import Status

_REF = ("image_id", "status", "width", "height", "uri")
# Columns that are repeated for tools that show and sort by them, and their names there.
VALUES: Mapping[str, str] = {
    "grade": "grade",
    "ita_degrees": "ita",
    "count_total": "count",
    "top_class": "top_class",
}
_IMAGES = (*_REF, *VALUES)
_CORNERS = ("x1", "y1", "x2", "y2")
_BOXES = ("image_id", *_CORNERS, "score", "label", "skin_overlap", "counted")


class ScoredBoxes:
    """Give out the photos with status ok, with the boxes that count.

    threshold: a box with at least this score counts if its centre is on the skin; None: as graded.
    chosen: the photos to give out; None: all.
    """

    def __init__(
        self, results: Results, threshold: float | None, chosen: Chosen | None = None
    ) -> None:
        scoring = read_scoring(results.store, results.fingerprint)
        described = read_destination(results.store)
        self.class_names = scoring.classes if scoring is not None else ()
        self.complete = results.snapshot is not None
        self.left_out: Counter[str] = Counter(
            {"not chosen": chosen.left_out} if chosen is not None else {}
        )
        missing = unfinished(results)
        self.notes = (
            *(chosen.notes if chosen is not None else ()),
            *(() if missing is None else (missing,)),
        )
        self._results, self._threshold, self._chosen = results, threshold, chosen
        self._counted_from = results.graded_by.threshold if threshold is None else threshold
        self._source = described.source.rstrip("/") if described is not None else ""
        pack = posixpath.basename(scoring.pack.rstrip("/")) if scoring is not None else ""
        self._model_version = f"{pack} {results.fingerprint}"

    def photos(self) -> Iterator[ExportedPhoto]:
        """Yield the photos in the order of the units' names, then of the tables."""
        chosen = self._chosen
        ids = pa.array([] if chosen is None else sorted(chosen.image_ids), pa.string())
        for images, boxes in self._results.units(
            _IMAGES, _BOXES, only=None if chosen is None else chosen.unit_ids
        ):
            if chosen is not None:
                images, boxes = (
                    t.filter(pc.is_in(t.column("image_id"), value_set=ids)) for t in (images, boxes)
                )
            yield from self._joined(images, boxes)

    def _joined(self, images: pa.Table, boxes: pa.Table) -> Iterator[ExportedPhoto]:
        doubts = self._uncertainties(images, boxes)
        kept = boxes.filter(pa.array(self._counts(boxes)))
        xyxy = np.stack([kept.column(name).to_numpy() for name in _CORNERS], axis=1).astype(
            np.float32
        )
        scores = kept.column("score").to_numpy().astype(np.float32)
        labels = kept.column("label").to_pylist()
        rows: dict[str, list[int]] = {}
        for row, image_id in enumerate(kept.column("image_id").to_pylist()):
            rows.setdefault(image_id, []).append(row)

        for image, doubt in zip(images.to_pylist(), doubts.tolist(), strict=True):
            if image["status"] != Status.OK:
                self.left_out[image["status"]] += 1
                continue
            mine = rows.get(image["image_id"], [])
            yield ExportedPhoto(
                image["image_id"],
                image["width"],
                image["height"],
                xyxy[mine],
                tuple(labels[n] for n in mine),
                scores[mine],
                address=self._address(image["image_id"], image["uri"]),
                prediction=Prediction(self._model_version, doubt, self._values(image)),
                drawn=self._drawn(image["image_id"]),
            )

    def _uncertainties(self, images: pa.Table, boxes: pa.Table) -> NDArray[np.float64]:
        ids = images.column("image_id").combine_chunks()
        photo = np.asarray(pc.index_in(boxes.column("image_id"), value_set=ids), np.int64)
        scores, on_skin = _doubles(boxes, "score"), _doubles(boxes, "skin_overlap") >= ON_SKIN
        return uncertainty(photo, scores, on_skin, self._counted_from, images.num_rows)

    def _address(self, image_id: str, uri: str) -> str:
        """Return where a photo is: its uri on S3, or its path from the folder above the source."""
        if uri.startswith("s3://") or not uri.startswith(f"{self._source}/"):
            return uri
        return f"{posixpath.basename(self._source)}/{image_id}"

    def _values(self, image: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values to repeat, without those that are missing."""
        values = {
            name: image[column] for column, name in VALUES.items() if image[column] is not None
        }
        if self._chosen is not None and image["image_id"] in self._chosen.suspicions:
            suspicion = self._chosen.suspicions[image["image_id"]]
            values |= {
                "suspicion": suspicion.value,
                "missed": suspicion.missed,
                "misplaced": suspicion.misplaced,
            }
        return {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in values.items()
        }

    def _drawn(self, image_id: str) -> tuple[NDArray[np.float32], tuple[str, ...]] | None:
        """Return what people drew on a photo that was chosen by it, in pixels of the scored photo."""
        if self._chosen is None or image_id not in self._chosen.drawn:
            return None
        photo, scale = self._chosen.drawn[image_id]
        assert photo.boxes is not None, "only photos with boxes are chosen by them"
        return (photo.boxes * scale).astype(np.float32), photo.labels or ("",) * len(photo.boxes)

    def _counts(self, boxes: pa.Table) -> NDArray[np.bool_]:
        if self._threshold is None:
            return np.asarray(boxes.column("counted").to_numpy(), np.bool_)
        on_skin = _doubles(boxes, "skin_overlap") >= ON_SKIN
        return np.asarray((_doubles(boxes, "score") >= self._threshold) & on_skin, np.bool_)


def _doubles(boxes: pa.Table, column: str) -> NDArray[np.float64]:
    """Return a column in double precision, as in the grading: 0.7 in single precision is less than 0.7."""
    return np.asarray(boxes.column(column).to_numpy(), np.float64)
