"""Find the photos of a scoring that deserve a look."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skinbatch.grading.counting import ON_SKIN
from skinbatch.grading.schemes import Scheme
from skinbatch.report.column_arrays import Floats, numbers_of
from skinbatch.report.summary import LISTED, WorthALook
from skinbatch.report.words import lesions, plain
from skinbatch.runs.destination import Scoring
from skinbatch.tables.names import column_name, count_columns

# A box just misses being counted if its score is at least this share of the threshold.
NEAR_THRESHOLD = 0.8

# Photos are called dark below this mean luma (0-255), and blurred below this sharpness.
DARK = 60.0
BLURRED = 20.0


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
class ListsWorthALook:
    """Keep the foremost photos for each reason to look at one.

    scheme, threshold: of the grading.
    """

    scoring: Scoring
    scheme: Scheme
    threshold: float
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
        """Add the photos of one unit."""
        ids = images.column("image_id").to_pylist()
        count = numbers_of(images, "count_total")
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

        brightness, sharpness = numbers_of(images, "brightness"), numbers_of(images, "sharpness")
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
        score, overlap = (
            numbers_of(boxes, "score"),
            np.nan_to_num(numbers_of(boxes, "skin_overlap")),
        )
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

        many = numbers_of(images, "grade_level") >= 1
        disagree = named & np.where(detectors, count == 0, many)
        self.other_disease.add(
            images.column("image_id").to_pylist(),
            np.nan_to_num(count),
            disagree,
            lambda n: f"{lesions(count[n])}, and {plain(diseases[n])}",
        )

    def _graded_lesions(self, images: pa.Table) -> Floats:
        """Return (N,) the number that the scheme grades, NaN if it is unknown."""
        total = numbers_of(images, "count_total")
        frontal = np.asarray(pc.fill_null(pc.equal(images.column("view"), "frontal"), False))
        if columns := class_counts(self.scoring, self.scheme):
            total = np.sum([numbers_of(images, column) for column in columns], axis=0)
            # Counts of half faces are not stored by class.
            return np.where(frontal, np.nan, total) if self.scheme.area == "half" else total
        if self.scheme.area == "whole":
            return total
        halves = np.fmax(numbers_of(images, "count_left"), numbers_of(images, "count_right"))
        return np.where(frontal & ~np.isnan(halves), halves, total)

    def result(self) -> tuple[WorthALook, ...]:
        """Return the lists in the order of the page."""
        lists = (
            self.saturated,
            self.boundary,
            self.near,
            self.dark,
            self.blurred,
            self.off_skin,
            self.other_disease,
        )
        return tuple(each.result() for each in lists)


def class_counts(scoring: Scoring, scheme: Scheme) -> tuple[str, ...]:
    """Return the columns whose sum a scheme grades; () for `count_total`."""
    columns = count_columns(scoring.classes)
    return tuple(columns[name] for name in scheme.classes or ())
