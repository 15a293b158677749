"""Gather what a report shows from the tables of a scoring, a unit at a time."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skinbatch.grading.counting import ON_SKIN
from skinbatch.grading.schemes import Scheme
from skinbatch.report.words import lesions, plain
from skinbatch.runs.destination import Scoring
from skinbatch.runs.results import Results
from skinbatch.tables.names import column_name, count_columns

Floats = NDArray[np.float64]

# Photos that each list of photos worth a look names.
LISTED = 20

# A box just misses being counted if its score is at least this share of the threshold.
NEAR_THRESHOLD = 0.8

# Photos are called dark below this mean luma (0-255), and blurred below this sharpness.
DARK = 60.0
BLURRED = 20.0

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


@dataclass(frozen=True, slots=True)
class Histogram:
    """Count values in bins. edges: (B + 1,). counts: (B,). Values outside the edges are in the end bins."""

    edges: Floats
    counts: NDArray[np.int64]

    @property
    def total(self) -> int:
        return int(self.counts.sum())


# Edges of the histograms, by column.
EDGES: Mapping[str, Floats] = {
    "count_total": np.array(
        [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 500], np.float64
    ),
    "skin_fraction": np.arange(21) / 20,
    "ita_degrees": np.arange(-60, 91, 5) / 1.0,
    "sharpness": np.array([0.0, *(10.0 ** (n / 6) for n in range(25))]),
    "brightness": np.array([10.2 * n for n in range(26)]),
}
PROBABILITY_EDGES = np.arange(21) / 20


@dataclass(frozen=True, slots=True)
class WorthALook:
    """Name photos that deserve a look.

    title, why: texts of the page. total: photos. entries: rows of the whole list, fewer than `total` if a
    row names several photos. photos: (image_id, detail), the foremost rows.
    """

    title: str
    why: str
    total: int
    entries: int
    photos: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """Hold everything that the page shows from the tables.

    statuses, grades, views, classes: value -> photos. errors: (status, text) -> photos. histograms:
    column -> Histogram. lists: photos worth a look.
    """

    photos: int
    boxes: int
    faces: int
    lesions: int
    statuses: Mapping[str, int]
    errors: tuple[tuple[str, str, int], ...]
    grades: Mapping[str, int]
    views: Mapping[str, int]
    classes: Mapping[str, int]
    histograms: Mapping[str, Histogram]
    lists: tuple[WorthALook, ...]


class _Foremost:
    """Keep the photos with the largest values, and count all that qualify."""

    def __init__(self, title: str, why: str) -> None:
        self.title, self.why = title, why
        self.total = 0
        self._heap: list[tuple[float, str, str]] = []

    def add(
        self,
        ids: Sequence[str],
        value: Floats,
        qualifies: NDArray[np.bool_],
        detail: Callable[[int], str],
    ) -> None:
        """Add photos of one unit. value: (N,), larger is more worth a look. detail: text for a row."""
        rows = np.flatnonzero(qualifies)
        self.total += len(rows)
        for row in rows[np.argsort(-value[rows], kind="stable")][:LISTED].tolist():
            entry = (float(value[row]), ids[row], detail(row))
            if len(self._heap) < LISTED:
                heapq.heappush(self._heap, entry)
            elif entry > self._heap[0]:
                heapq.heapreplace(self._heap, entry)

    def result(self) -> WorthALook:
        ordered = sorted(self._heap, key=lambda entry: (-entry[0], entry[1]))
        photos = tuple((name, text) for _, name, text in ordered)
        return WorthALook(self.title, self.why, self.total, self.total, photos)


@dataclass(slots=True)
class _Tally:
    """Sum up units."""

    scoring: Scoring
    scheme: Scheme
    threshold: float
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
    saturated: _Foremost = field(
        default_factory=lambda: _Foremost(
            "Saturated",
            "The detector reached its limit of boxes, so there may be more lesions than were counted.",
        )
    )
    boundary: _Foremost = field(
        default_factory=lambda: _Foremost(
            "Close to a grade boundary", "One lesion more or less would change the grade."
        )
    )
    near: _Foremost = field(
        default_factory=lambda: _Foremost(
            "Just below the threshold",
            "Several boxes score slightly too low to be counted. They may be lesions.",
        )
    )
    dark: _Foremost = field(
        default_factory=lambda: _Foremost(
            "Dark", "Lesions are hard to see in little light, so counts may be too low."
        )
    )
    blurred: _Foremost = field(
        default_factory=lambda: _Foremost(
            "Blurred", "Small lesions vanish in blurred photos, so counts may be too low."
        )
    )
    off_skin: _Foremost = field(
        default_factory=lambda: _Foremost(
            "Detector and segmenter disagree",
            "The detector found lesions where the segmenter found no skin. One of them is wrong.",
        )
    )
    other_disease: _Foremost = field(
        default_factory=lambda: _Foremost(
            "Detector and classifier disagree",
            "Many lesions are counted, but the classifier names another disease; or it names their disease, and none "
            "is counted. One of them may be wrong.",
        )
    )

    def add(self, images: pa.Table, boxes: pa.Table) -> None:
        """Add one unit."""
        self.photos += images.num_rows
        self.boxes += boxes.num_rows
        self._add_values(images)
        self._add_lists(images, boxes)

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
            values = _numbers(images, column)
            inside = np.clip(values[~np.isnan(values)], edges[0], edges[-1])
            counts, _ = np.histogram(inside, edges)
            self.counts[column] = self.counts.get(column, 0) + counts

    def _add_lists(self, images: pa.Table, boxes: pa.Table) -> None:
        ids = images.column("image_id").to_pylist()
        count = _numbers(images, "count_total")
        self.saturated.add(
            ids,
            np.nan_to_num(count),
            np.asarray(pc.fill_null(images.column("saturated"), False)),
            lambda n: f"{lesions(count[n])} counted",
        )

        graded = self._graded_lesions(images)
        distance = np.min([np.abs(graded - (upper + 0.5)) for upper in self.scheme.upper], axis=0)
        self.boundary.add(
            ids,
            -distance + 0.001 * np.nan_to_num(graded),
            distance < 1,
            lambda n: lesions(graded[n]),
        )

        brightness, sharpness = _numbers(images, "brightness"), _numbers(images, "sharpness")
        self.dark.add(
            ids, -brightness, brightness < DARK, lambda n: f"brightness {brightness[n]:.0f} of 255"
        )
        self.blurred.add(
            ids, -sharpness, sharpness < BLURRED, lambda n: f"sharpness {sharpness[n]:.0f}"
        )

        photo = np.asarray(
            pc.index_in(
                boxes.column("image_id"), value_set=images.column("image_id").combine_chunks()
            ),
            np.int64,
        )
        score, overlap = _numbers(boxes, "score"), np.nan_to_num(_numbers(boxes, "skin_overlap"))
        almost = (
            (score < self.threshold)
            & (score >= NEAR_THRESHOLD * self.threshold)
            & (overlap >= ON_SKIN)
        )
        nearly = np.bincount(photo[almost], minlength=len(ids)).astype(float)
        self.near.add(ids, nearly, nearly >= 3, lambda n: f"{nearly[n]:.0f} boxes")
        off = np.bincount(
            photo[(score >= self.threshold) & (overlap < ON_SKIN)], minlength=len(ids)
        ).astype(float)
        self.off_skin.add(ids, off, off >= 3, lambda n: f"{off[n]:.0f} boxes off the skin")
        self._add_other_diseases(images, count)

    def _add_other_diseases(self, images: pa.Table, count: Floats) -> None:
        """Add the photos where detector and classifier disagree. count: (N,) lesions, NaN if unknown."""
        diseases = images.column("top_class").to_pylist()
        detected = {column_name(name) for name in self.scoring.classes}
        named = np.array([name is not None for name in diseases], np.bool_)
        detectors = np.array(
            [name is not None and column_name(name) in detected for name in diseases], np.bool_
        )

        many = _numbers(images, "grade_level") >= 1
        disagree = named & np.where(detectors, count == 0, many)
        self.other_disease.add(
            images.column("image_id").to_pylist(),
            np.nan_to_num(count),
            disagree,
            lambda n: f"{lesions(count[n])}, and {plain(diseases[n])}",
        )

    def _graded_lesions(self, images: pa.Table) -> Floats:
        """Return (N,) the number that the scheme grades, NaN if it is unknown."""
        total = _numbers(images, "count_total")
        frontal = np.asarray(pc.fill_null(pc.equal(images.column("view"), "frontal"), False))
        if columns := _class_counts(self.scoring, self.scheme):
            total = np.sum([_numbers(images, column) for column in columns], axis=0)
            # Counts of half faces are not stored by class.
            return np.where(frontal, np.nan, total) if self.scheme.area == "half" else total
        if self.scheme.area == "whole":
            return total
        halves = np.fmax(_numbers(images, "count_left"), _numbers(images, "count_right"))
        return np.where(frontal & ~np.isnan(halves), halves, total)

    def result(self) -> Findings:
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
        lists = (
            self.saturated,
            self.boundary,
            self.near,
            self.dark,
            self.blurred,
            self.off_skin,
            self.other_disease,
        )
        order = {name: n for n, name in enumerate(self.scheme.grades)}
        return Findings(
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
            lists=(*(each.result() for each in lists), copies),
        )


def gather(
    results: Results,
    scoring: Scoring,
    scheme: Scheme,
    threshold: float,
    progress: Callable[[int], None] = lambda photos: None,
) -> Findings:
    """Sum up all units of a scoring.

    Memory grows with the number of photos only by their names and hashes, which are needed to find
    copies.

    Args:
        scheme, threshold: of the grading that `results` shows.
        progress: called with the number of photos done.
    """
    tally = _Tally(scoring, scheme, threshold)
    columns = (*_IMAGES, *_class_counts(scoring, scheme), *scoring.prob_columns)
    for images, boxes in results.units(columns, _BOXES):
        tally.add(images, boxes)
        progress(tally.photos)
    return tally.result()


def _class_counts(scoring: Scoring, scheme: Scheme) -> tuple[str, ...]:
    """Return the columns whose sum a scheme grades; () for `count_total`."""
    columns = count_columns(scoring.classes)
    return tuple(columns[name] for name in scheme.classes or ())


def also(names: Sequence[str]) -> str:
    """Return `also b, c`, with the first three names."""
    return (
        "also " + ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
    )


def _numbers(table: pa.Table, column: str) -> Floats:
    """Return (N,) a column as float64, NaN for null."""
    values = pc.cast(table.column(column), pa.float64())
    return np.asarray(values.to_numpy(), np.float64)


def _without_name(error: str) -> str:
    """Return an error without the photo's name before it, so that equal errors of many photos are one."""
    head, separator, rest = error.partition(": ")
    return rest if separator and ("/" in head or "." in head) else error
