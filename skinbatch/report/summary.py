"""Describe what a report shows from the tables of a scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skinbatch.report.column_arrays import Floats

# Photos that each list of photos worth a look names.
LISTED = 20


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
class Summary:
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


def also(names: Sequence[str]) -> str:
    """Return `also b, c`, with the first three names."""
    return (
        "also " + ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
    )
