"""Compare scorings of the same photos: grades, counts, boxes, and what changed most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pycocotools import mask as coco

from skinbatch.annotations.grouping import Grouping
from skinbatch.errors import UsageError
from skinbatch.metrics.bootstrap import Estimate, Resampling, bootstrap, numbered
from skinbatch.metrics.boxes import xywh
from skinbatch.metrics.counts import count_error
from skinbatch.metrics.grades import agreement, confusion
from skinbatch.report.column_arrays import Floats, numbers_of
from skinbatch.report.comparison import Changed, Compared, Comparison
from skinbatch.report.person_groups import persons_of
from skinbatch.report.words import lesions, plain
from skinbatch.runs import destination
from skinbatch.runs.results import Results
from skinbatch.runs.status import unfinished

Ints = NDArray[np.int64]

# Two boxes are the same lesion if they overlap by at least this IoU.
SAME_BOX = 0.5

# Photos that are named as changed most.
LISTED = 30

_IMAGES = ("image_id", "status", "face", "count_total", "grade", "grade_level")
_CORNERS = ("x1", "y1", "x2", "y2")


def compare(
    a: Results, b: Results, *, how: Resampling | None = None, grouping: Grouping | None = None
) -> Compared:
    """Compare two scorings photo by photo. Photos are paired by image_id.

    Args:
        a, b: the scorings.
        how: how intervals are drawn; None: 1,000 resamples.
        grouping: how photos of one person are known, which are resampled together; None: each
            photo is resampled on its own.

    Raises:
        UsageError: If the two have no photo in common, or `grouping` fits none of them.

    Example:
        >>> results = skinbatch.open("scored")
        >>> compare(results, results).comparison.drift
        0.0
    """
    one, other = (
        results.images(_IMAGES).sort_by("image_id").combine_chunks() for results in (a, b)
    )
    at = pc.index_in(one.column("image_id"), value_set=other.column("image_id").combine_chunks())
    both = pc.is_valid(at)
    if not pc.any(both).as_py():
        raise UsageError(
            f"{a.store.uri} and {b.store.uri} have no photo in common: photos are paired by image_id, "
            f"such as {_example(one)} and {_example(other)}; score the same source twice to compare"
        )

    mine, theirs = (
        one.filter(both),
        other.take(at.filter(both) if isinstance(at, pa.Array) else pc.drop_null(at)),
    )
    how = Resampling() if how is None else how
    groups = None
    if grouping is not None:
        image_ids = mine.column("image_id").to_pylist()
        groups = numbered(persons_of(a, image_ids, grouping), image_ids)

    counts = np.stack([numbers_of(mine, "count_total"), numbers_of(theirs, "count_total")], axis=1)
    boxes = _boxes(a, b, mine.column("image_id"))
    levels = [
        np.nan_to_num(numbers_of(t, "grade_level"), nan=-1).astype(np.int64) for t in (mine, theirs)
    ]
    differs = _differs(mine, theirs)
    grades, table = _confusion(mine, theirs, levels)
    estimates = _estimates(differs, levels, len(grades), counts, boxes, how, groups)

    bias, spread = _mean_and_spread(counts)
    boxes_a, boxes_b, boxes_same = boxes.sum(axis=0).tolist()
    comparison = Comparison(
        a=_described(a),
        b=_described(b),
        photos=mine.num_rows,
        only_a=one.num_rows - mine.num_rows,
        only_b=other.num_rows - mine.num_rows,
        drift=float(differs.mean()),
        same_grade=estimates["same_grade"].value,
        quadratic_kappa=estimates["quadratic_kappa"].value,
        grades=grades,
        confusion=tuple(tuple(row) for row in table.tolist()),
        count_bias=bias,
        count_low=bias - 1.96 * spread,
        count_high=bias + 1.96 * spread,
        boxes_a=boxes_a,
        boxes_b=boxes_b,
        boxes_same=boxes_same,
        box_agreement=estimates["box_agreement"].value,
        intervals={name: (estimate.low, estimate.high) for name, estimate in estimates.items()},
        over="photos" if groups is None else "groups",
        changed=_changed(
            mine, theirs, differs, counts, boxes[:, 0] + boxes[:, 1] - 2 * boxes[:, 2]
        ),
        notes=tuple(note for note in (unfinished(a), unfinished(b)) if note is not None),
    )
    return Compared(comparison, counts)


def _estimates(
    differs: NDArray[np.bool_],
    levels: Sequence[Ints],
    grades: int,
    counts: Floats,
    boxes: Ints,
    how: Resampling,
    groups: Ints | None,
) -> dict[str, Estimate]:
    """Return the numbers that have intervals. boxes: (P, 3) of A, of B and of both."""
    graded = (levels[0] >= 0) & (levels[1] >= 0)
    counted = np.asarray(~np.isnan(counts).any(axis=1), np.bool_)

    def of(keep: NDArray[np.bool_]) -> Ints | None:
        return None if groups is None else groups[keep]

    same = agreement(levels[0][graded], levels[1][graded], max(grades, 1), how, groups=of(graded))
    bias = count_error(counts[counted, 0], counts[counted, 1], how, groups=of(counted))["mean"]
    drifting = np.stack([differs, np.ones(len(differs))], axis=1).astype(np.float64)
    (drift,) = bootstrap(drifting, _ratio, how, groups=groups)
    paired = np.stack([2 * boxes[:, 2], boxes[:, 0] + boxes[:, 1]], axis=1).astype(np.float64)
    (boxed,) = bootstrap(paired, _ratio, how, groups=groups)
    return {
        "drift": drift,
        "same_grade": same["accuracy"],
        "quadratic_kappa": same["quadratic_kappa"],
        "count_bias": bias,
        "box_agreement": boxed,
    }


def _ratio(sums: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[:, :1] / sums[:, 1:], np.float64)


def _described(results: Results) -> str:
    scoring = destination.read_scoring(results.store, results.fingerprint)
    pack = f", pack {scoring.pack}" if scoring is not None else ""
    grading = f", grading {results.grading.record.gid}" if results.grading is not None else ""
    return f"{results.store.uri}, scoring {results.fingerprint}{pack}{grading}"


def _example(table: pa.Table) -> str:
    return repr(table.column("image_id")[0].as_py()) if table.num_rows else "none"


def _differs(mine: pa.Table, theirs: pa.Table) -> NDArray[np.bool_]:
    """Return (P,) whether status, face or grade differ."""
    differs = np.zeros(mine.num_rows, np.bool_)
    for column in ("status", "face", "grade"):
        one, other = (
            pc.fill_null(pc.cast(t.column(column), pa.string()), "") for t in (mine, theirs)
        )
        differs |= np.asarray(pc.not_equal(one, other))
    return differs


def _confusion(
    mine: pa.Table, theirs: pa.Table, levels: Sequence[Ints]
) -> tuple[tuple[str, ...], Ints]:
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


def _mean_and_spread(counts: Floats) -> tuple[float, float]:
    difference = (counts[:, 1] - counts[:, 0])[~np.isnan(counts).any(axis=1)]
    if not len(difference):
        return float("nan"), float("nan")
    return float(difference.mean()), float(difference.std(ddof=1)) if len(difference) > 1 else 0.0


def _boxes(a: Results, b: Results, ids: pa.ChunkedArray) -> Ints:
    """Return (P, 3) counted boxes of A, of B, and of A that B has too."""
    tables = [_counted_boxes(results, ids) for results in (a, b)]
    starts = [np.searchsorted(photo, np.arange(len(ids) + 1)) for photo, _ in tables]
    counts = np.zeros((len(ids), 3), np.int64)
    for n in range(len(ids)):
        mine, theirs = (xyxy[s[n] : s[n + 1]] for (_, xyxy), s in zip(tables, starts, strict=True))
        counts[n] = len(mine), len(theirs), _paired(mine, theirs)
    return counts


def _counted_boxes(results: Results, ids: pa.ChunkedArray) -> tuple[Ints, Floats]:
    table = results.boxes(("image_id", *_CORNERS, "counted"))
    table = table.filter(table.column("counted"))
    photo = pc.index_in(table.column("image_id"), value_set=ids.combine_chunks())
    table = table.filter(pc.is_valid(photo))
    numbers = np.asarray(pc.drop_null(photo), np.int64)
    order = np.argsort(numbers, kind="stable")
    xyxy = np.stack([numbers_of(table, edge) for edge in _CORNERS], axis=1)
    return numbers[order], xyxy[order]


def _paired(mine: Floats, theirs: Floats) -> int:
    """Return how many boxes pair up one to one by IoU 0.5, the best overlap first."""
    if not len(mine) or not len(theirs):
        return 0
    iou = np.asarray(coco.iou(xywh(mine), xywh(theirs), np.zeros(len(theirs), np.uint8)))
    pairs = 0
    while iou.max() >= SAME_BOX:
        row, column = np.unravel_index(int(iou.argmax()), iou.shape)
        iou[row, :] = iou[:, column] = -1
        pairs += 1
    return pairs


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
    return tuple(
        Changed(one["image_id"], _words(one), _words(other))
        for one, other in zip(before, after, strict=True)
    )


def _words(row: Mapping[str, Any]) -> str:
    if row["status"] != "ok":
        return str(row["status"])
    if row["count_total"] is None:
        return "no face"
    return f"{lesions(row['count_total'])}, {plain(row['grade'])}"
