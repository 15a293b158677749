"""Give a report's main numbers with intervals over persons: `skinbatch report --group`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from skinbatch.annotations.grouping import ESTIMATE, GroupCount, Grouping
from skinbatch.metrics.bootstrap import Estimate, Resampling, bootstrap, numbered
from skinbatch.report.person_groups import persons_of
from skinbatch.report.words import plain
from skinbatch.runs.results import Results

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Hold how many groups the photos have, and numbers with intervals over groups.

    about: the groups, in words. rows: name of a number, its value and its interval, as text.
    """

    about: str
    rows: tuple[tuple[str, str, str], ...]


def group_figures(results: Results, grouping: Grouping) -> GroupFigures:
    """Return the mean count and the share of each grade over photos with a face.

    Raises:
        UsageError: no photo has a group, or the column does not exist.
    """
    table = results.images(["image_id", "count_total", "grade"])
    names = persons_of(results, table.column("image_id").to_pylist(), grouping)
    how = f" ({ESTIMATE})" if grouping.by_look else ""
    about = f"Groups by `{grouping.text}`{how}: {GroupCount.of(names).as_text()}."

    graded = pc.and_(pc.is_valid(table.column("grade")), pc.is_valid(table.column("count_total")))
    groups = numbered(names, range(len(names)))[np.asarray(graded)]
    with_face = table.filter(graded)
    grades = with_face.column("grade").to_pylist()
    counts = np.asarray(with_face.column("count_total"), np.float64)
    kinds = sorted(set(grades))
    if not len(counts):
        return GroupFigures(about, ())

    columns = [
        counts,
        *(np.array([grade == kind for grade in grades], np.float64) for kind in kinds),
    ]
    parts = np.stack([np.ones(len(counts)), *columns], axis=1)
    estimates = bootstrap(parts, _means, Resampling(), groups=groups)
    titles = [
        "mean lesions per photo",
        *(f"share of photos graded {plain(kind)}" for kind in kinds),
    ]
    return GroupFigures(
        about, tuple(_row(title, each) for title, each in zip(titles, estimates, strict=True))
    )


def _means(sums: Floats) -> Floats:
    return np.asarray(sums[:, 1:] / sums[:, :1], np.float64)


def _row(title: str, estimate: Estimate) -> tuple[str, str, str]:
    interval = f"{estimate.low:.3f} to {estimate.high:.3f}" if np.isfinite(estimate.low) else "–"
    return title, f"{estimate.value:.3f}", interval
