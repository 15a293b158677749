"""Read merged files, which `compact` makes from the tables of many units.

Each table is one row group. The footer lists the units, and the file's name holds the hashes of the
file and of its footer, so that a merged file needs no record beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skinbatch.archive.ranged import RangedFile
from skinbatch.errors import NotFoundError, TableError
from skinbatch.runs import layout
from skinbatch.storage.store import Store
from skinbatch.types import DataFile, MergedPart

# Name of the footer's list of units: a JSON list of [unit_id, attempt, sha256, bytes, rows].
UNITS = "skinbatch.units"

# Bytes that are read from the end of a file at first. Most footers are smaller.
_TAIL = 1 << 20
# Length and magic number at the end of a footer.
_END = 8
# Some stores do not notice a byte that was damaged on the way.
_READS = 3
_MOST_FOOTERS = 4

WAY_OUT = "delete it, and run the same `skinbatch score` again, which scores its units again"


class MergedUnit(NamedTuple):
    """Describe one unit's table in a merged file.

    sha256, bytes, rows: of the file that the unit's worker wrote. row_group: None if it has no rows.
    """

    unit_id: str
    attempt: str
    sha256: str
    bytes: int
    rows: int
    row_group: int | None


class _Footer(NamedTuple):
    size: int
    metadata: pq.FileMetaData


@dataclass(frozen=True, slots=True, eq=False)
class MergedFile:
    """Hold what a merged file contains.

    size: bytes. units: table with the fields of MergedUnit and `name`, `<unit_id>.<attempt>`.
    """

    key: str
    kind: str
    size: int
    units: pa.Table

    def __len__(self) -> int:
        return int(self.units.num_rows)

    def __iter__(self) -> Iterator[MergedUnit]:
        for row in self.units.select(MergedUnit._fields).to_pylist():
            yield MergedUnit(**row)

    def part(self, unit_id: str, attempt: str) -> MergedPart | None:
        """Return where it holds the table of a unit and attempt; None if it does not."""
        place = pc.index(self.units.column("name"), f"{unit_id}.{attempt}").as_py()
        if place < 0:
            return None

        row = self.units.slice(place, 1).to_pylist()[0]
        prefix = self.key.rpartition("/")[0]
        return MergedPart(
            kind=self.kind,
            path=f"{prefix}/{row['name']}.parquet",
            sha256=row["sha256"],
            bytes=row["bytes"],
            rows=row["rows"],
            within=self.key,
            row_group=row["row_group"],
        )


def open_merged(store: Store, kind: str, key: str) -> MergedFile:
    """Read which units a merged file holds.

    Raises:
        NotFoundError: If the file does not exist.
        TableError: If its footer is damaged.
    """
    footer = _read_footer(store, key)
    units = units_of(store.uri_of(key), footer.metadata)
    names = pa.array([f"{unit.unit_id}.{unit.attempt}" for unit in units], pa.string())
    schema = pa.schema(
        [
            ("unit_id", pa.string()),
            ("attempt", pa.string()),
            ("sha256", pa.string()),
            ("bytes", pa.int64()),
            ("rows", pa.int64()),
            ("row_group", pa.int32()),
        ]
    )
    table = pa.Table.from_pylist([unit._asdict() for unit in units], schema)
    return MergedFile(key, kind, footer.size, table.append_column("name", names))


def find_part(store: Store, file: DataFile) -> MergedPart | None:
    """Return where a merged file holds the table of a file that is gone; None if none does."""
    prefix, _, name = file.path.rpartition("/")
    unit_id, _, attempt = name.removesuffix(".parquet").rpartition(".")
    for key in store.keys(f"{prefix}/units."):
        if layout.merged_hashes(key) is None:
            continue
        with suppress(NotFoundError, TableError):
            part = open_merged(store, file.kind, key).part(unit_id, attempt)
            if part is not None and part.sha256 == file.sha256:
                return part
    return None


def units_of(where: str, metadata: pq.FileMetaData) -> list[MergedUnit]:
    """Return the units that a footer lists, in the order of their row groups."""
    text = (metadata.metadata or {}).get(UNITS.encode())
    if text is None:
        raise TableError(f"{where}: a Parquet file that skinbatch did not write (no list of units)")

    units = []
    row_group = 0
    for unit_id, attempt, sha256, size, rows in json.loads(text):
        units.append(MergedUnit(unit_id, attempt, sha256, size, rows, row_group if rows else None))
        row_group += 1 if rows else 0
    return units


def read_part(store: Store, part: MergedPart, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a unit's table from a merged file, or those of `columns` that it has.

    Its metadata is that of the file that the unit's worker wrote.

    Raises:
        NotFoundError: If the merged file does not exist.
        TableError: If it is damaged.
    """
    for _ in range(_READS - 1):
        with suppress(TableError):
            return _read_row_group(store, part, columns)
    return _read_row_group(store, part, columns)


def _read_row_group(store: Store, part: MergedPart, columns: Sequence[str] | None) -> pa.Table:
    footer = _FOOTERS.get(store, part.within)
    start, stop = _byte_range(footer.metadata, part.row_group)
    file = RangedFile(store, part.within, footer.size, None, block=max(1, stop - start))
    try:
        with pq.ParquetFile(
            pa.PythonFile(file, mode="r"),
            metadata=footer.metadata,
            pre_buffer=False,
            page_checksum_verification=True,
        ) as opened:
            known = opened.schema_arrow
            present = None if columns is None else [c for c in columns if c in known.names]
            if part.row_group is None:
                table = known.empty_table().select(known.names if present is None else present)
            else:
                table = opened.read_row_group(part.row_group, columns=present, use_threads=False)
    except (pa.ArrowException, OSError) as e:
        raise TableError(
            f"{store.uri_of(part.within)}: not readable as Parquet: {e}; {WAY_OUT}"
        ) from None

    if table.num_rows != part.rows:
        raise TableError(
            f"{store.uri_of(part.within)}: {table.num_rows} rows of unit {part.path}, but its receipt records {part.rows}"
        )
    return without_units(table)


def without_units(table: pa.Table) -> pa.Table:
    """Return a table of a merged file with the metadata that the units' own files had."""
    metadata = dict(table.schema.metadata or {})
    metadata.pop(UNITS.encode(), None)
    return table.replace_schema_metadata(metadata)


def footer_of(tail: bytes) -> bytes:
    """Return the footer at the end of a Parquet file: its metadata, their length and `PAR1`."""
    length = int.from_bytes(tail[-_END:-4], "little") + _END
    return tail[-length:]


def footer_hash(footer: bytes) -> str:
    return hashlib.sha256(footer).hexdigest()[:16]


def _byte_range(metadata: pq.FileMetaData, row_group: int | None) -> tuple[int, int]:
    if row_group is None:
        return 0, 0
    group = metadata.row_group(row_group)
    chunks = [group.column(number) for number in range(group.num_columns)]
    starts = []
    for chunk in chunks:
        # A chunk without a dictionary has no dictionary page.
        starts.append(chunk.dictionary_page_offset or chunk.data_page_offset)
    ends = [start + c.total_compressed_size for start, c in zip(starts, chunks, strict=True)]
    return min(starts), max(ends)


class _Footers:
    """Keep the footers that were read last. Parsed, one may take tens of megabytes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], _Footer] = OrderedDict()
        self._lock = Lock()

    def get(self, store: Store, key: str) -> _Footer:
        """Return the footer of a merged file, which never changes under one name."""
        name = store.uri, key
        # Threads that need the same footer wait for it, so that it is in memory only once.
        with self._lock:
            footer = self._kept.get(name) or _read_footer(store, key)
            self._kept[name] = footer
            self._kept.move_to_end(name)
            if len(self._kept) > _MOST_FOOTERS:
                self._kept.popitem(last=False)
        return footer


_FOOTERS = _Footers()


def _read_footer(store: Store, key: str) -> _Footer:
    hashes = layout.merged_hashes(key)
    assert hashes is not None, f"{key} is not a merged file"
    size = store.head(key).size
    for _ in range(_READS if size > _END else 0):
        tail = store.get_range(key, max(0, size - _TAIL), size)
        length = int.from_bytes(tail[-_END:-4], "little") + _END
        if len(tail) < length <= size:
            tail = store.get_range(key, size - length, size)
        footer = footer_of(tail)
        # pyarrow may abort the process on a damaged footer.
        if footer_hash(footer) == hashes[1]:
            return _Footer(size, pq.read_metadata(pa.BufferReader(footer)))
    raise TableError(f"{store.uri_of(key)}: its footer is not the one that was written; {WAY_OUT}")
