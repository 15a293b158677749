"""Grade stored boxes again without reading photos: `skinbatch regrade`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skinbatch.errors import UsageError
from skinbatch.grading.arrays import LEFT, NO_SIDE, BoxArrays, PhotoCounts, count_photos
from skinbatch.grading.counting import Method
from skinbatch.grading.schemes import Scheme, scheme_column
from skinbatch.runs import destination, gradings, layout
from skinbatch.runs.claim import claimed
from skinbatch.runs.destination import Scoring
from skinbatch.runs.gradings import Grading, GradingFile, GradingRecord
from skinbatch.runs.record import next_id
from skinbatch.runs.results import Results
from skinbatch.runs.status import read_status
from skinbatch.storage.store import Store
from skinbatch.tables.names import count_columns
from skinbatch.tables.parquet import write_parquet
from skinbatch.tables.schema import gradings_schema

# Number of photos that are graded at the same time and stored in one file of a grading.
PHOTOS_AT_ONCE = 200_000

_IMAGES = ("image_id", "count_total", "count_left", "view", "unit_id")
_CORNERS = ("x1", "y1", "x2", "y2")
_BOXES = ("image_id", *_CORNERS, "score", "label", "skin_overlap", "side")


@dataclass(frozen=True, slots=True)
class Regraded:
    """Report the result of `regrade`.

    gid: id of the grading. grades: grade -> number of photos. changed: photos whose total count
    differs from that of the scoring's first grading. images: address of the new tables.
    """

    scoring: str
    gid: str
    threshold: float
    scheme: str
    counting: str
    photos: int
    boxes: int
    grades: Mapping[str, int]
    changed: int
    images: str


def regrade(
    store: Store,
    *,
    scoring: str | None = None,
    threshold: float | None = None,
    scheme: Scheme | None = None,
    counting: Method | None = None,
    version: str = "",
    progress: Callable[[int], None] = lambda photos: None,
) -> Regraded:
    """Count and grade the stored boxes of a scoring again, and write the result beside it.

    Settings that are not given are those of the scoring's first run. The tables of the scoring do
    not change. A result of the same grading replaces its older result.

    Args:
        store: a destination.
        scoring: its fingerprint or the first digits. None: that of the newest run.
        threshold: lowest score of a counted box.
        scheme: turns counts into a grade.
        counting: counts boxes, or the connected areas that boxes cover.
        version: of skinbatch, for the record.
        progress: called with the number of photos done.

    Raises:
        UsageError: the scoring is not finished, the threshold is below the scores that were stored,
            or the scheme names classes that the detector does not have.
        ClaimError: a run is using the destination (exit code 7).
    """
    destination.require_destination(store)
    fingerprint = destination.choose_scoring(store, scoring)
    results = Results(store, fingerprint)
    original = destination.read_scoring(store, fingerprint)
    assert original is not None, "choose_scoring has just read it"
    if results.snapshot is None:
        state = read_status(store, fingerprint)
        raise UsageError(
            f"{store.uri}: scoring {fingerprint} is not finished: {state.photos_done:,} of {state.photos_total:,} photos "
            "are done so far; run the same `skinbatch score` again, then regrade"
        )

    grading = _grading(original, threshold, scheme, counting)
    with claimed(store, next_id(store), "regrade"):
        files, tally = _write_files(results, original, grading, progress)
        record = GradingRecord(
            name=_next_name(store, fingerprint, grading.gid),
            gid=grading.gid,
            definition=asdict(grading),
            snapshot=results.snapshot,
            files=tuple(files),
            created=destination.now(),
            skinbatch=version,
        )
        gradings.write_record(store, fingerprint, record)
        _remove_older(store, fingerprint, record)

    return replace(
        tally,
        images=store.uri_of(layout.grading_data_prefix(fingerprint, grading.gid)),
    )


def _grading(
    scoring: Scoring, threshold: float | None, scheme: Scheme | None, counting: Method | None
) -> Grading:
    """Return the requested grading, with the scoring's own settings for those that are None."""
    first = scoring.grading
    floor = scoring.numbers["model"]["score_floor"]
    chosen = float(first["threshold"]) if threshold is None else threshold
    if not floor <= chosen <= 1:
        raise UsageError(
            f"threshold {chosen:g}: boxes are stored from a score of {floor:g} on, so the threshold must lie between "
            f"{floor:g} and 1; a lower threshold needs a scoring with a lower [model] score_floor"
        )

    if scheme is None:
        from skinbatch.grading.scheme_file import find_scheme

        scheme = find_scheme(str(first["scheme"]))
    unknown = sorted(set(scheme.classes or ()) - set(scoring.classes))
    if unknown:
        raise UsageError(
            f"scheme {scheme.name!r}: `classes` names {', '.join(unknown)}; this scoring's detector has the classes "
            f"{', '.join(scoring.classes)}"
        )
    return Grading(chosen, scheme, counting or first["counting"])


def _next_name(store: Store, fingerprint: str, gid: str) -> str:
    names = gradings.record_names(store, fingerprint).get(gid, [])
    return layout.numbered(layout.number_of(names[0])[0] + 1 if names else 0)


def _write_files(
    results: Results, scoring: Scoring, grading: Grading, progress: Callable[[int], None]
) -> tuple[list[GradingFile], Regraded]:
    prefix = layout.grading_data_prefix(results.fingerprint, grading.gid)
    metadata = {
        "fingerprint": results.fingerprint,
        "grading": grading.gid,
        "threshold": f"{grading.threshold:g}",
        "scheme": grading.scheme.name,
        "counting": grading.counting,
    }

    files: list[GradingFile] = []
    photos = boxes = changed = 0
    levels = np.zeros(len(grading.scheme.grades), np.int64)
    for images, of_boxes in _batches(results):
        table, level = _graded(images, of_boxes, scoring, grading)
        data = write_parquet(table, metadata)
        path = f"{prefix}{layout.numbered(len(files))}.parquet"
        results.store.put(path, data)
        files.append(GradingFile(path, hashlib.sha256(data).hexdigest(), table.num_rows))

        photos += table.num_rows
        boxes += of_boxes.num_rows
        levels += np.bincount(level[level >= 0], minlength=len(levels))
        before = pc.fill_null(images.column("count_total"), -1).to_numpy()
        changed += int(np.sum(before != pc.fill_null(table.column("count_total"), -1).to_numpy()))
        progress(photos)

    grades = dict(zip(grading.scheme.grades, levels.tolist(), strict=True))
    tally = Regraded(
        scoring=results.fingerprint,
        gid=grading.gid,
        threshold=grading.threshold,
        scheme=grading.scheme.name,
        counting=grading.counting,
        photos=photos,
        boxes=boxes,
        grades=grades,
        changed=changed,
        images="",
    )
    return files, tally


def _batches(results: Results) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the images and boxes of several units at a time."""
    images: list[pa.Table] = []
    boxes: list[pa.Table] = []
    for of_images, of_boxes in results.units(_IMAGES, _BOXES):
        images.append(of_images)
        boxes.append(of_boxes)
        if sum(table.num_rows for table in images) >= PHOTOS_AT_ONCE:
            yield pa.concat_tables(images), pa.concat_tables(boxes)
            images, boxes = [], []

    if images:
        yield pa.concat_tables(images), pa.concat_tables(boxes)


def _graded(
    images: pa.Table, boxes: pa.Table, scoring: Scoring, grading: Grading
) -> tuple[pa.Table, np.ndarray[Any, Any]]:
    """Return rows of `gradings` for these photos, and their levels (-1 if there is no grade)."""
    arrays = _arrays(images, boxes, scoring.classes)
    scheme, number = grading.scheme, images.num_rows
    counts = count_photos(arrays, number, len(scoring.classes), grading.threshold, grading.counting)

    graded_counts = counts
    if scheme.classes is not None:
        chosen = [scoring.classes.index(name) for name in scheme.classes]
        some = arrays.only(np.isin(arrays.label, chosen))
        graded_counts = count_photos(
            some, number, len(scoring.classes), grading.threshold, grading.counting
        )

    # Photos without a count, such as those without a face, get no grade. Without a nose there are
    # no halves.
    has_counts = pc.is_valid(images.column("count_total")).to_numpy()
    has_nose = pc.is_valid(images.column("count_left")).to_numpy()
    frontal = pc.fill_null(pc.equal(images.column("view"), "frontal"), False).to_numpy()
    level = scheme.levels(
        graded_counts.total, graded_counts.left, graded_counts.right, frontal & has_nose
    )
    level = np.where(has_counts, level, -1)
    return _table(images, counts, level, has_counts, has_nose, scoring.classes, scheme), level


def _arrays(images: pa.Table, boxes: pa.Table, classes: Sequence[str]) -> BoxArrays:
    photo = pc.index_in(
        boxes.column("image_id"), value_set=images.column("image_id").combine_chunks()
    )
    side = pc.index_in(boxes.column("side"), value_set=pa.array(["left", "right"]))
    return BoxArrays(
        photo=np.asarray(photo, np.int64),
        xyxy=np.stack([np.asarray(boxes.column(name), np.float64) for name in _CORNERS], axis=1),
        score=np.asarray(boxes.column("score"), np.float64),
        label=np.asarray(
            pc.index_in(boxes.column("label"), value_set=pa.array(classes, pa.string())), np.int64
        ),
        side=np.asarray(pc.fill_null(pc.add(side, LEFT), NO_SIDE), np.int64),
        skin_overlap=np.asarray(pc.fill_null(boxes.column("skin_overlap"), np.nan), np.float64),
    )


def _table(
    images: pa.Table,
    counts: PhotoCounts,
    level: np.ndarray[Any, Any],
    has_counts: np.ndarray[Any, Any],
    has_nose: np.ndarray[Any, Any],
    classes: Sequence[str],
    scheme: Scheme,
) -> pa.Table:
    halves = has_counts & has_nose
    names = pa.array(scheme.grades, pa.string())
    columns: dict[str, pa.Array] = {
        "image_id": images.column("image_id"),
        "unit_id": images.column("unit_id"),
        "count_total": pa.array(counts.total, pa.int32(), mask=~has_counts),
        "count_left": pa.array(counts.left, pa.int32(), mask=~halves),
        "count_right": pa.array(counts.right, pa.int32(), mask=~halves),
        "grade": names.take(pa.array(level, pa.int64(), mask=level < 0)),
        "grade_level": pa.array(level, pa.int8(), mask=level < 0),
        "grade_scheme": _schemes(images, level, scheme),
    }
    for n, column in enumerate(count_columns(classes).values()):
        columns[column] = pa.array(counts.by_class[:, n], pa.int32(), mask=~has_counts)

    schema = gradings_schema(classes)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _schemes(images: pa.Table, level: np.ndarray[Any, Any], scheme: Scheme) -> pa.Array:
    """Return the column `grade_scheme`: null where there is no grade."""
    closeup = pc.fill_null(pc.equal(images.column("view"), "closeup"), False)
    names = pc.if_else(closeup, scheme_column(scheme, "closeup"), scheme.name).combine_chunks()
    return pc.if_else(pa.array(level >= 0), names, pa.scalar(None, pa.string()))


def _remove_older(store: Store, fingerprint: str, record: GradingRecord) -> None:
    """Remove the files that a grading's new record replaces; records first, as they name files."""
    older = [
        name
        for name in gradings.record_names(store, fingerprint)[record.gid]
        if name != record.name
    ]
    store.delete(gradings.record_key(fingerprint, record.gid, name) for name in older)

    named = {file.path for file in record.files}
    store.delete(
        [
            key
            for key in store.keys(layout.grading_data_prefix(fingerprint, record.gid))
            if key not in named
        ]
    )
