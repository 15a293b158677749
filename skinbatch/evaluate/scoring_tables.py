"""Read what the tables of a destination hold about the photos that are judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skinbatch.grading.counting import ON_SKIN
from skinbatch.metrics.boxes import Boxes
from skinbatch.runs import destination
from skinbatch.runs.destination import Scoring
from skinbatch.runs.gradings import Grading
from skinbatch.runs.named_column import fields_of, named_column
from skinbatch.runs.results import open_results
from skinbatch.runs.status import unfinished
from skinbatch.storage.store import Store
from skinbatch.tables.names import column_name

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DISEASE = "disease"
_IMAGES = (
    "image_id",
    "uri",
    "sha256",
    "status",
    "error",
    "face",
    "ita_degrees",
    "count_total",
    "grade_level",
    "top_class",
    "width",
    "height",
)
_BOXES = ("image_id", "box_id", "x1", "y1", "x2", "y2", "score", "label", "skin_overlap")


@dataclass(frozen=True, slots=True)
class PredictedBoxes:
    """Hold found boxes.

    boxes: all that were kept, with labels as indices of `classes`. on_skin: (N,) bool, boxes that
    count if their score is high enough.
    """

    boxes: Boxes
    on_skin: NDArray[np.bool_]
    classes: tuple[str, ...]


class ScoringTables:
    """Read the tables of one scoring once. images: one row for each photo, by rising image_id."""

    def __init__(self, store: Store, scoring: str | None, grading: str | None = None) -> None:
        self.uri = store.uri
        self._results = open_results(store, scoring, grading)
        kept = destination.read_scoring(store, self._results.fingerprint)
        assert kept is not None, "open_results has just read it"
        self.scoring: Scoring = kept
        self.graded_by: Grading = self._results.graded_by
        columns = (*_IMAGES, *kept.prob_columns)
        self.images: pa.Table = self._results.images(columns).sort_by("image_id").combine_chunks()
        self.image_ids: list[str] = self.images.column("image_id").to_pylist()

    def missing(self) -> str | None:
        """Return a sentence on how much of the scoring is missing; None if nothing is."""
        return unfinished(self._results)

    @property
    def uris(self) -> list[str]:
        """Return where the bytes of every photo are, as the tables spell it."""
        return list(self.images.column("uri").to_pylist())

    def named_column(self, name: str, image_ids: Sequence[str]) -> list[str | None] | None:
        """Return a column, or field of `meta`, of some photos as text; None without it."""
        return named_column(self._results, name, image_ids)

    def fields(self) -> list[str]:
        """Return the columns of fields that passed through from the source."""
        return fields_of(self._results)

    @property
    def threshold(self) -> float:
        """Return the score from which the shown grading counts a box."""
        return self.graded_by.threshold

    @property
    def grading(self) -> dict[str, Any]:
        """Return the shown grading as plain values; `grading` is its id if `regrade` made it."""
        shown = self._results.grading
        if shown is None:
            return dict(self.scoring.grading)
        by = self.graded_by
        named = {"threshold": by.threshold, "counting": by.counting, "scheme": by.scheme.name}
        return named | {"grading": shown.record.gid}

    def heads(self) -> dict[str, dict[str, str]]:
        """Return classifier -> class as columns spell it -> column."""
        heads: dict[str, dict[str, str]] = {}
        for column in self.scoring.prob_columns:
            head, _, name = (
                ("", "", column.removeprefix("prob_"))
                if column.startswith("prob_")
                else column.partition("_prob_")
            )
            heads.setdefault(head or DISEASE, {})[name] = column
        return heads

    def numbers(self, column: str, rows: Ints) -> Floats:
        """Return (P,) values of a numeric column, NaN for null."""
        values = self.images.column(column).take(pa.array(rows))
        return np.asarray(pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False), np.float64)

    def texts(self, column: str, rows: Ints) -> list[str | None]:
        """Return (P,) values of a text or boolean column."""
        return list(self.images.column(column).take(pa.array(rows)).to_pylist())

    def boxes(self, rows: Ints) -> PredictedBoxes:
        """Return the boxes of these photos, by box_id within each.

        Photos are numbered as in `rows`.
        """
        table = self._results.boxes(_BOXES)
        ids = self.images.column("image_id").take(pa.array(rows)).combine_chunks()
        photo = pc.index_in(table.column("image_id"), value_set=ids)
        table = table.drop_columns(["image_id"]).filter(pc.is_valid(photo))
        photo = np.asarray(pc.drop_null(photo), np.int64)
        order = np.lexsort((np.asarray(table.column("box_id")), photo))
        classes = tuple(
            dict.fromkeys((*self.scoring.classes, *pc.unique(table.column("label")).to_pylist()))
        )
        label = np.asarray(
            pc.index_in(table.column("label"), value_set=pa.array(classes, pa.string())), np.int64
        )
        xyxy = np.stack(
            [np.asarray(table.column(edge), np.float64) for edge in ("x1", "y1", "x2", "y2")],
            axis=1,
        )
        score = np.asarray(table.column("score"), np.float64)
        on_skin = np.asarray(pc.fill_null(table.column("skin_overlap"), 0.0), np.float64) >= ON_SKIN
        boxes = Boxes(len(rows), photo[order], xyxy[order], label[order], score[order])
        return PredictedBoxes(boxes, on_skin[order], classes)

    def masks(self) -> Masks | None:
        """Return the run lengths of all photos; None for a scoring without --save-masks."""
        if not self.scoring.save_masks:
            return None
        return Masks(self._results.masks())


class Masks:
    """Give access to the table `masks` by image_id.

    classes: class as columns spell it -> column.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._row = {image_id: n for n, image_id in enumerate(table.column("image_id").to_pylist())}
        columns = [name for name in table.column_names if name.startswith("rle_")]
        self.classes: Mapping[str, str] = {name.removeprefix("rle_"): name for name in columns}

    def of(self, image_id: str) -> tuple[tuple[int, int], Sequence[str]] | None:
        """Return height, width and compressed run lengths in the order of `classes`.

        None without a mask.
        """
        n = self._row.get(image_id)
        if n is None:
            return None
        row = self._table.slice(n, 1).to_pylist()[0]
        if row["height"] is None:
            return None
        return (row["height"], row["width"]), [row[column] for column in self.classes.values()]


def spelled(name: str) -> str:
    """Return a class name as columns spell it, to compare names of people and of models."""
    return column_name(name.strip())
