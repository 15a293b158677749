"""Write and read receipts, the records that units are done, and folds, which copy many receipts."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from skinbatch.errors import StoreError
from skinbatch.redact import redacted
from skinbatch.runs import layout
from skinbatch.storage.store import Store
from skinbatch.types import DataFile, Receipt

FOLD_EVERY = 1000
# Most rows of a table of receipts that exist as Python objects at the same time. They are six times
# as large as in Arrow.
_ROWS_AT_ONCE = 1000

# Columns of folds and snapshots: unit, key of its receipt, rows, keys of its data files, and the
# receipt's own JSON.
RECEIPTS_SCHEMA = pa.schema(
    [
        pa.field("unit_id", pa.string(), nullable=False),
        pa.field("receipt", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("files", pa.list_(pa.string()), nullable=False),
        pa.field("record", pa.string(), nullable=False),
    ]
)


class Entry(NamedTuple):
    """Hold one row of a fold or snapshot; see RECEIPTS_SCHEMA."""

    unit_id: str
    receipt: str
    rows: int
    files: list[str]
    record: bytes


def to_json(receipt: Receipt) -> bytes:
    return json.dumps(asdict(receipt), separators=(",", ":")).encode()


def from_json(data: bytes | str) -> Receipt:
    """Read a receipt from what `to_json` wrote. Raises ValueError, KeyError or TypeError for
    anything else.
    """
    raw = json.loads(data)
    raw["files"] = tuple(DataFile(**f) for f in raw["files"])
    raw["taken_from"] = tuple(DataFile(**f) for f in raw.get("taken_from", ()))
    return Receipt(**raw)


def to_parquet(entries: Iterable[Entry], metadata: Mapping[bytes, bytes] | None = None) -> bytes:
    """Return a Parquet file of RECEIPTS_SCHEMA with one row for each receipt."""
    sink = io.BytesIO()
    write_parquet(sink, entries, metadata)
    return sink.getvalue()


def write_parquet(
    sink: IO[bytes], entries: Iterable[Entry], metadata: Mapping[bytes, bytes] | None = None
) -> None:
    """Write what `to_parquet` returns into an open file."""
    schema = RECEIPTS_SCHEMA.with_metadata(metadata)
    # Keys, hashes and JSON are all different, so a dictionary would only cost time. Nobody reads
    # statistics of them.
    how = {
        "compression": "zstd",
        "use_dictionary": False,
        "write_statistics": False,
        "write_page_checksum": True,
    }
    left = iter(entries)
    with pq.ParquetWriter(sink, schema, **how) as writer:
        while some := list(islice(left, _ROWS_AT_ONCE)):
            columns = zip(*some, strict=True)
            arrays = [pa.array(column, f.type) for column, f in zip(columns, schema, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def rows_of(file: pq.ParquetFile, *columns: str) -> Iterator[tuple[Any, ...]]:
    """Yield rows of a fold or snapshot without holding all of it as Python objects.

    All columns are read, so that a changed byte in any of them is noticed. Raises pa.ArrowException
    or OSError.
    """
    for batch in file.iter_batches(_ROWS_AT_ONCE, use_threads=False):
        yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def open_parquet(data: bytes) -> pq.ParquetFile:
    """Open a fold or snapshot for `rows_of`. Raises pa.ArrowException or OSError."""
    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False, page_checksum_verification=True)


def key_of(fingerprint: str, receipt: Receipt) -> str:
    return layout.receipt_key(fingerprint, receipt.unit_id, receipt.generation, receipt.attempt)


def write_fold(store: Store, fingerprint: str, n: int, entries: Iterable[Entry]) -> None:
    """Write a copy of receipts in one object, so that resuming reads few objects."""
    store.put(
        f"{layout.folds_prefix(fingerprint)}{layout.numbered(n)}.parquet", to_parquet(entries)
    )


def deaths(store: Store, fingerprint: str) -> Mapping[tuple[str, str], Sequence[str]]:
    """Return (unit_id, `inputs_name` of the unit) -> keys of the recorded deaths of its workers."""
    keys: dict[tuple[str, str], list[str]] = defaultdict(list)
    prefix = layout.attempts_prefix(fingerprint)
    for info in store.list(prefix):
        unit_id, _, name = info.key[len(prefix) :].partition("/")
        keys[unit_id, name.split(".")[0]].append(info.key)
    return keys


def last_death(store: Store, keys: Iterable[str]) -> Mapping[str, Any]:
    """Return the newest of these records; empty if none can be read."""
    records = []
    for key in keys:
        with suppress(StoreError, ValueError):  # only the wording of a verdict depends on it
            records.append(dict(json.loads(store.get(key)[0])))
    return max(records, key=lambda record: str(record.get("at", "")), default={})


def inputs_name(inputs_sha256: str) -> str:
    """Return the part of inputs_sha256 that is in the keys of a unit's death records."""
    return inputs_sha256[:12]


def write_death(
    store: Store, fingerprint: str, unit_id: str, inputs_sha256: str, record: Mapping[str, Any]
) -> None:
    """Record that a unit killed its worker, so that the next driver continues the count."""
    key = f"{layout.attempts_prefix(fingerprint)}{unit_id}/{inputs_name(inputs_sha256)}.{layout.fresh()}.json"
    store.put(key, redacted(json.dumps(dict(record))).encode())
