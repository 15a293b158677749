"""Check the gradings of a scoring: their records, and the files that the records name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pyarrow as pa

from skinbatch.errors import NotFoundError, UsageError
from skinbatch.runs import gradings, layout
from skinbatch.runs.gradings import GradingFile, GradingRecord
from skinbatch.runs.snapshot import Snapshot
from skinbatch.storage.store import Store
from skinbatch.tables.parquet import read_columns

_NAMED = 20
_AGAIN = "run `skinbatch regrade` with the same options again"


def check_gradings(store: Store, fingerprint: str, shown: Snapshot | None) -> Iterator[str]:
    """Yield a sentence for each problem of the scoring's gradings. Every file is read once.

    A grading of an older snapshot is sound: readers refuse it until it is made again.

    Args:
        shown: the snapshot that counts.
    """
    named: set[str] = set()
    for gid, names in gradings.record_names(store, fingerprint).items():
        try:
            record = gradings.read_record(store, fingerprint, gid, names[0])
        except UsageError as e:
            yield str(e)
            named.update(store.keys(layout.grading_data_prefix(fingerprint, gid)))
            continue

        named.update(file.path for file in record.files)
        yield from _problems(store, record, shown)

    yield from _unnamed(store, fingerprint, named)


def _problems(store: Store, record: GradingRecord, shown: Snapshot | None) -> Iterator[str]:
    for file in record.files:
        problem = _problem_of(store, file)
        if problem is not None:
            yield f"grading {record.gid} ({gradings.describe(record.grading)}): {problem}; {_AGAIN}"

    rows = sum(file.rows for file in record.files)
    if shown is not None and record.snapshot == shown.name and rows != shown.rows:
        yield f"grading {record.gid}: {rows:,} rows, and its snapshot has {shown.rows:,}; {_AGAIN}"


def _problem_of(store: Store, file: GradingFile) -> str | None:
    where = store.uri_of(file.path)
    try:
        data, _ = store.get(file.path)
    except NotFoundError:
        return f"{where}: the file is gone"
    if hashlib.sha256(data).hexdigest() != file.sha256:
        return (
            f"{where}: its bytes are not those that were written (its SHA-256 is not the record's)"
        )

    try:
        rows = read_columns(data, ["image_id"]).num_rows
    except (pa.ArrowException, OSError) as e:
        return f"{where}: not readable as Parquet: {e}"
    return (
        None if rows == file.rows else f"{where}: {rows:,} rows, but its record has {file.rows:,}"
    )


def _unnamed(store: Store, fingerprint: str, named: set[str]) -> Iterator[str]:
    prefix = layout.all_grading_data_prefix(fingerprint)
    keys = sorted(key for key in store.keys(prefix) if key not in named)
    if keys:
        shown = ", ".join(key[len(prefix) :] for key in keys[:_NAMED])
        more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
        yield f"{store.uri_of(prefix)}: files that no record of a grading names: {shown}{more}; delete them"
