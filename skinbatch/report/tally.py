"""Gather what a report shows from the tables of a scoring, a unit at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skinbatch.grading.schemes import Scheme
from skinbatch.report.column_arrays import numbers_of
from skinbatch.report.summary import (
    EDGES,
    LISTED,
    PROBABILITY_EDGES,
    Histogram,
    Summary,
    WorthALook,
    also,
)
from skinbatch.report.worth_a_look import ListsWorthALook, class_counts
from skinbatch.runs.destination import Scoring
from skinbatch.runs.results import Results

_IMAGES = (
    "image_id",
    "status",
    "error",
    "sha256",
    "face",
    "view",
    "skin_fraction",
    "sharpness",
    "brightness",
    "ita_degrees",
    "count_total",
    "count_left",
    "count_right",
    "saturated",
    "grade",
    "grade_level",
    "top_class",
)
_BOXES = ("image_id", "score", "skin_overlap", "counted")


@dataclass(slots=True)
class _Tally:
    """Sum up units."""

    scoring: Scoring
    scheme: Scheme
    lists: ListsWorthALook
    photos: int = 0
    boxes: int = 0
    faces: int = 0
    lesions: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    grades: Counter[str] = field(default_factory=Counter)
    views: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    hashes: dict[str, list[str]] = field(default_factory=dict)

    def add(self, images: pa.Table, boxes: pa.Table) -> None:
        """Add one unit."""
        self.photos += images.num_rows
        self.boxes += boxes.num_rows
        self._add_values(images)
        self.lists.add(images, boxes)

    def _add_values(self, images: pa.Table) -> None:
        statuses = images.column("status").to_pylist()
        self.statuses.update(statuses)
        for status, error in zip(statuses, images.column("error").to_pylist(), strict=True):
            if status != "ok":
                self.errors[status, _without_name(error or "")] += 1

        self.faces += pc.sum(pc.fill_null(images.column("face"), False)).as_py() or 0
        self.lesions += pc.sum(images.column("count_total")).as_py() or 0
        for column, counter in (
            ("grade", self.grades),
            ("view", self.views),
            ("top_class", self.classes),
        ):
            counter.update(
                value for value in images.column(column).to_pylist() if value is not None
            )

        for image_id, sha256 in zip(
            *(images.column(c).to_pylist() for c in ("image_id", "sha256")), strict=True
        ):
            if sha256 is not None:
                self.hashes.setdefault(sha256, []).append(image_id)
        for column in (*EDGES, *self.scoring.prob_columns):
            edges = EDGES.get(column, PROBABILITY_EDGES)
            values = numbers_of(images, column)
            inside = np.clip(values[~np.isnan(values)], edges[0], edges[-1])
            counts, _ = np.histogram(inside, edges)
            self.counts[column] = self.counts.get(column, 0) + counts

    def result(self) -> Summary:
        """Return the sums."""
        twins = {sha256: names for sha256, names in self.hashes.items() if len(names) > 1}
        copies = WorthALook(
            "Copies",
            "The same file has several names, so it counts more than once in every number on this page. "
            "With --look-alikes, the report also finds the same photo in another size or compression.",
            sum(len(names) for names in twins.values()),
            len(twins),
            tuple(
                (names[0], also(names[1:]))
                for names in sorted(twins.values(), key=lambda names: (-len(names), names))[:LISTED]
            ),
        )
        order = {name: n for n, name in enumerate(self.scheme.grades)}
        return Summary(
            photos=self.photos,
            boxes=self.boxes,
            faces=self.faces,
            lesions=self.lesions,
            statuses=dict(self.statuses.most_common()),
            errors=tuple(
                (status, text, count) for (status, text), count in self.errors.most_common(LISTED)
            ),
            grades={
                name: self.grades.get(name, 0) for name in sorted(order, key=order.__getitem__)
            },
            views=dict(self.views.most_common()),
            classes=dict(self.classes.most_common()),
            histograms={
                column: Histogram(EDGES.get(column, PROBABILITY_EDGES), counts)
                for column, counts in self.counts.items()
            },
            lists=(*self.lists.result(), copies),
        )


def gather(
    results: Results,
    scoring: Scoring,
    scheme: Scheme,
    threshold: float,
    progress: Callable[[int], None] = lambda photos: None,
) -> Summary:
    """Sum up all units of a scoring.

    Memory grows with the number of photos only by their names and hashes, which are needed to find
    copies.

    Args:
        scheme, threshold: of the grading that `results` shows.
        progress: called with the number of photos done.
    """
    tally = _Tally(scoring, scheme, ListsWorthALook(scoring, scheme, threshold))
    columns = (*_IMAGES, *class_counts(scoring, scheme), *scoring.prob_columns)
    for images, boxes in results.units(columns, _BOXES):
        tally.add(images, boxes)
        progress(tally.photos)
    return tally.result()


def _without_name(error: str) -> str:
    """Return an error without the photo's name before it, so that equal errors of many photos are one."""
    head, separator, rest = error.partition(": ")
    return rest if separator and ("/" in head or "." in head) else error
