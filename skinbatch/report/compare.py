"""Compare two scorings of the same photos: grades, counts, boxes, and what changed most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pycocotools import mask as coco

from skinbatch.errors import UsageError
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.grades import agreement, confusion
from skinbatch.report import svg
from skinbatch.report.page import render
from skinbatch.runs import destination
from skinbatch.runs.results import Results

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Two boxes are the same lesion if they overlap by at least this IoU.
SAME_BOX = 0.5

# Photos that are named as changed most.
LISTED = 30

_IMAGES = ("image_id", "status", "face", "count_total", "grade", "grade_level")
_CORNERS = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True, slots=True)
class Changed:
    """Name a photo that changed. before, after: count and grade, or status, in words."""

    image_id: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Hold how two scorings of the same photos differ.

    a, b: what was compared, in words. photos: that both have. only_a, only_b: photos that one has.
    drift: share of the common photos whose status, face or grade differs. same_grade: share, and
    quadratic_kappa, of the photos with a grade in both. confusion: rows are grades of A, columns of
    B. count_bias, count_low, count_high: mean of B minus A and its limits of agreement (mean +/-
    1.96 standard deviations; Bland, Altman, Lancet 327 (1986) 307-310). boxes_a, boxes_b,
    boxes_same: counted boxes, and those of A that B has too, by IoU 0.5.
    """

    a: str
    b: str
    photos: int
    only_a: int
    only_b: int
    drift: float
    same_grade: float
    quadratic_kappa: float
    grades: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    count_bias: float
    count_low: float
    count_high: float
    boxes_a: int
    boxes_b: int
    boxes_same: int
    changed: tuple[Changed, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain values; an undefined number is None."""
        values = asdict(self)
        return {name: None if isinstance(v, float) and np.isnan(v) else v for name, v in values.items()}


@dataclass(frozen=True, slots=True)
class Compared:
    """Hold a comparison and what its page draws. counts: (P, 2) of A and B, NaN without a count."""

    comparison: Comparison
    counts: Floats


def compare(a: Results, b: Results) -> Compared:
    """Compare two scorings photo by photo. Photos are paired by image_id.

    Raises:
        UsageError: If the two have no photo in common.

    Example:
        >>> results = skinbatch.open("scored")
        >>> compare(results, results).comparison.drift
        0.0
    """
    one, other = (results.images(_IMAGES).sort_by("image_id").combine_chunks() for results in (a, b))
    at = pc.index_in(one.column("image_id"), value_set=other.column("image_id").combine_chunks())
    both = pc.is_valid(at)
    if not pc.any(both).as_py():
        raise UsageError(
            f"{a.store.uri} and {b.store.uri} have no photo in common: photos are paired by image_id, "
            f"such as {_example(one)} and {_example(other)}; score the same source twice to compare"
        )

    mine, theirs = one.filter(both), other.take(at.filter(both) if isinstance(at, pa.Array) else pc.drop_null(at))
    counts = np.stack([_numbers(mine, "count_total"), _numbers(theirs, "count_total")], axis=1)
    boxes_a, boxes_b, same, apart = _boxes(a, b, mine.column("image_id"))
    levels = [np.nan_to_num(_numbers(t, "grade_level"), nan=-1).astype(np.int64) for t in (mine, theirs)]
    differs = _differs(mine, theirs)
    grades, table = _confusion(mine, theirs, levels)
    graded = (levels[0] >= 0) & (levels[1] >= 0)

    bias, spread = _mean_and_spread(counts)
    comparison = Comparison(
        a=_described(a),
        b=_described(b),
        photos=mine.num_rows,
        only_a=one.num_rows - mine.num_rows,
        only_b=other.num_rows - mine.num_rows,
        drift=float(differs.mean()),
        same_grade=float(np.mean(levels[0][graded] == levels[1][graded])) if graded.any() else np.nan,
        quadratic_kappa=_kappa(levels[0][graded], levels[1][graded], len(grades)),
        grades=grades,
        confusion=tuple(tuple(row) for row in table.tolist()),
        count_bias=bias,
        count_low=bias - 1.96 * spread,
        count_high=bias + 1.96 * spread,
        boxes_a=boxes_a,
        boxes_b=boxes_b,
        boxes_same=same,
        changed=_changed(mine, theirs, differs, counts, apart),
    )
    return Compared(comparison, counts)


def compare_page(found: Compared, *, version: str) -> str:
    """Return a comparison as one HTML page."""
    return render("compare.html.j2", c=found.comparison, plots=_plots(found), version=version, made=destination.now())


def _plots(found: Compared) -> list[str]:
    counts = found.counts[~np.isnan(found.counts).any(axis=1)]
    c = found.comparison
    if not len(counts):
        return []
    lines = {c.count_bias: "mean", c.count_low: "-1.96 sd", c.count_high: "+1.96 sd"}
    return [
        svg.scatter(
            counts.mean(axis=1), counts[:, 1] - counts[:, 0], "Counts (Bland-Altman)", "mean of A and B", "B - A", lines
        ),
        svg.scatter(counts[:, 0], counts[:, 1], "Counts", "A", "B", diagonal=True),
    ]


def _described(results: Results) -> str:
    scoring = destination.read_scoring(results.store, results.fingerprint)
    pack = f", pack {scoring.pack}" if scoring is not None else ""
    grading = f", grading {results.grading.record.gid}" if results.grading is not None else ""
    return f"{results.store.uri}, scoring {results.fingerprint}{pack}{grading}"


def _example(table: pa.Table) -> str:
    return repr(table.column("image_id")[0].as_py()) if table.num_rows else "none"


def _numbers(table: pa.Table, column: str) -> Floats:
    return np.asarray(pc.cast(table.column(column), pa.float64()).to_numpy(), np.float64)


def _differs(mine: pa.Table, theirs: pa.Table) -> NDArray[np.bool_]:
    """Return (P,) whether status, face or grade differ."""
    differs = np.zeros(mine.num_rows, np.bool_)
    for column in ("status", "face", "grade"):
        one, other = (pc.fill_null(pc.cast(t.column(column), pa.string()), "") for t in (mine, theirs))
        differs |= np.asarray(pc.not_equal(one, other))
    return differs


def _confusion(mine: pa.Table, theirs: pa.Table, levels: Sequence[Ints]) -> tuple[tuple[str, ...], Ints]:
    """Return the names of the grades by level, and (L, L) photos: rows A, columns B."""
    names: dict[int, str] = {}
    for table, level in zip((mine, theirs), levels, strict=True):
        for number, name in zip(level.tolist(), table.column("grade").to_pylist(), strict=True):
            if number >= 0:
                names.setdefault(number, name)
    grades = tuple(names.get(level, str(level)) for level in range(max(names, default=-1) + 1))
    graded = (levels[0] >= 0) & (levels[1] >= 0)
    table = confusion(levels[0][graded], levels[1][graded], len(grades))[:, : len(grades)]
    return grades, np.asarray(table, np.int64)


def _kappa(one: Ints, other: Ints, levels: int) -> float:
    if not len(one):
        return float("nan")
    return agreement(one, other, levels, Resampling(0))["quadratic_kappa"].value


def _mean_and_spread(counts: Floats) -> tuple[float, float]:
    difference = (counts[:, 1] - counts[:, 0])[~np.isnan(counts).any(axis=1)]
    if not len(difference):
        return float("nan"), float("nan")
    return float(difference.mean()), float(difference.std(ddof=1)) if len(difference) > 1 else 0.0


def _boxes(a: Results, b: Results, ids: pa.ChunkedArray) -> tuple[int, int, int, Ints]:
    """Return counted boxes of A, of B, and of A that B has too; and (P,) boxes without a partner."""
    tables = [_counted_boxes(results, ids) for results in (a, b)]
    starts = [np.searchsorted(photo, np.arange(len(ids) + 1)) for photo, _ in tables]
    apart = np.zeros(len(ids), np.int64)
    same = 0
    for n in range(len(ids)):
        mine, theirs = (xyxy[s[n] : s[n + 1]] for (_, xyxy), s in zip(tables, starts, strict=True))
        paired = _paired(mine, theirs)
        same += paired
        apart[n] = len(mine) + len(theirs) - 2 * paired
    return len(tables[0][0]), len(tables[1][0]), same, apart


def _counted_boxes(results: Results, ids: pa.ChunkedArray) -> tuple[Ints, Floats]:
    table = results.boxes(("image_id", *_CORNERS, "counted"))
    table = table.filter(table.column("counted"))
    photo = pc.index_in(table.column("image_id"), value_set=ids.combine_chunks())
    table = table.filter(pc.is_valid(photo))
    numbers = np.asarray(pc.drop_null(photo), np.int64)
    order = np.argsort(numbers, kind="stable")
    xyxy = np.stack([_numbers(table, edge) for edge in _CORNERS], axis=1)
    return numbers[order], xyxy[order]


def _paired(mine: Floats, theirs: Floats) -> int:
    """Return how many boxes pair up one to one by IoU 0.5, the best overlap first."""
    if not len(mine) or not len(theirs):
        return 0
    iou = np.asarray(coco.iou(_xywh(mine), _xywh(theirs), np.zeros(len(theirs), np.uint8)))
    pairs = 0
    while iou.max() >= SAME_BOX:
        row, column = np.unravel_index(int(iou.argmax()), iou.shape)
        iou[row, :] = iou[:, column] = -1
        pairs += 1
    return pairs


def _xywh(xyxy: Floats) -> Floats:
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)


def _changed(
    mine: pa.Table, theirs: pa.Table, differs: NDArray[np.bool_], counts: Floats, apart: Ints
) -> tuple[Changed, ...]:
    """Return the photos that changed most: first by status or face, then by grade and count."""
    difference = np.abs(counts[:, 1] - counts[:, 0])
    lost = np.isnan(difference) & ~np.isnan(counts).all(axis=1)
    weight = np.where(lost, 1e9, np.nan_to_num(difference)) + differs + apart / 1e4
    rows = np.argsort(-weight, kind="stable")[:LISTED]
    rows = rows[weight[rows] > 0]
    before, after = (table.take(pa.array(rows)).to_pylist() for table in (mine, theirs))
    return tuple(Changed(one["image_id"], _words(one), _words(other)) for one, other in zip(before, after, strict=True))


def _words(row: Mapping[str, Any]) -> str:
    if row["status"] != "ok":
        return str(row["status"])
    if row["count_total"] is None:
        return "no face"
    return f"{row['count_total']} lesions, {row['grade']}"
