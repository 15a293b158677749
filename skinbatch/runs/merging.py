"""Write merged files: the tables of many units, one row group each, in files of about 128 MB."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skinbatch.errors import StoreError, TableError
from skinbatch.lookahead import ahead
from skinbatch.runs import layout
from skinbatch.runs.holdings import find_holdings, require_sound
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.merged import (
    UNITS,
    WAY_OUT,
    MergedFile,
    MergedUnit,
    footer_hash,
    footer_of,
    without_units,
)
from skinbatch.runs.stub import Stub
from skinbatch.storage.store import Store
from skinbatch.tables.parquet import read_columns
from skinbatch.types import DataFile

TARGET_BYTES = 128 << 20
# A parsed footer takes 0.8 KB of memory for each column of each unit: 30 MB for 1,000 units of `images`.
MOST_UNITS = 1000

_READERS = 8
_BYTES_AHEAD = 32 << 20
# How often a file is read back until its bytes are right.
_READS = 3


# Kind, schema and metadata. Tables of one merged file agree in all three.
_Alike = tuple[str, str, tuple[tuple[Any, Any], ...]]


@dataclass(frozen=True, slots=True)
class MergeInput:
    """Describe a file whose tables are moved.

    units: those to take. is_merged: it holds several units, as row groups.
    """

    key: str
    kind: str
    sha256: str
    size: int
    units: tuple[MergedUnit, ...]
    is_merged: bool

    @classmethod
    def of_unit(cls, stub: Stub, file: DataFile) -> MergeInput:
        """Return the source for a file that a unit's worker has written."""
        unit = MergedUnit(stub.unit_id, stub.attempt, file.sha256, file.bytes, file.rows, None)
        return cls(file.path, file.kind, file.sha256, file.bytes, (unit,), False)

    @classmethod
    def of_merged(cls, file: MergedFile, units: Iterable[MergedUnit]) -> MergeInput:
        """Return the source for some units of a merged file."""
        hashes = layout.merged_hashes(file.key)
        assert hashes is not None, "merged files are recognised by their names"
        return cls(file.key, file.kind, hashes[0], file.size, tuple(units), True)

    def tables(self, store: Store, data: bytes) -> Iterator[tuple[MergedUnit, pa.Table]]:
        """Yield each unit's table with its own metadata.

        Raises TableError if the bytes are not those that were written.
        """
        where = store.uri_of(self.key)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise TableError(f"{where}: its bytes are not those that were written; {WAY_OUT}")
        if not self.is_merged:
            yield self.units[0], self._table_of_unit(where, data)
            return

        with pq.ParquetFile(
            pa.BufferReader(data), pre_buffer=False, page_checksum_verification=True
        ) as file:
            for unit in self.units:
                if unit.row_group is None:
                    table = file.schema_arrow.empty_table()
                else:
                    table = file.read_row_group(unit.row_group, use_threads=False)
                yield unit, without_units(table)

    def _table_of_unit(self, where: str, data: bytes) -> pa.Table:
        """Return the table of a unit's own file. Raises TableError unless it has its recorded rows."""
        table, rows = read_columns(data), self.units[0].rows
        if table.num_rows != rows:
            raise TableError(
                f"{where}: {table.num_rows} rows, but its receipt records {rows}; {WAY_OUT}"
            )
        return table


@dataclass(slots=True)
class Moved:
    """Hold the bytes of the files that were written and deleted, by their keys."""

    written: dict[str, int] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)


class Merger:
    """Write the tables of sources into merged files, each with tables of the same metadata.

    A merged file is in force as soon as it exists. Its sources may be deleted from then on.
    """

    def __init__(
        self,
        store: Store,
        fingerprint: str,
        *,
        before_write: Callable[[], None] = lambda: None,
        before_delete: Callable[[], None] | None = None,
    ) -> None:
        """Start without files.

        Args:
            before_write: Called before each file is written.
            before_delete: Called before the sources of a file are deleted; an exception keeps them.
                None keeps all sources, also if a file has only one.
        """
        self.store = store
        self.fingerprint = fingerprint
        self.done = Moved()
        self._before_write = before_write
        self._before_delete = before_delete
        self._open: dict[_Alike, _Output] = {}

    def move(
        self, sources: Iterable[MergeInput], progress: Callable[[], None] = lambda: None
    ) -> None:
        """Move the tables of sources of one kind, in their order.

        Raises:
            TableError: If a source is damaged.
            NotFoundError: If a source is gone.
        """

        def read(source: MergeInput) -> bytes:
            return self.store.get(source.key)[0]

        read_ahead = ahead(
            sources, read, _READERS, budget=_BYTES_AHEAD, cost=lambda source: source.size
        )
        for source, data in read_ahead:
            self._add(source, data)
            progress()
        for key in list(self._open):
            self._close(key)

    def _add(self, source: MergeInput, data: bytes) -> None:
        output: _Output | None = None
        for unit, table in source.tables(self.store, data):
            if output is None:
                output = self._output_for(source, table.schema)
                output.sources[source.key] = source.size
            output.add(unit, table)

    def _output_for(self, source: MergeInput, schema: pa.Schema) -> _Output:
        metadata = tuple(sorted((schema.metadata or {}).items()))
        key = source.kind, str(schema.remove_metadata()), metadata
        output = self._open.get(key)
        if output is not None and not output.has_room_for(source):
            self._close(key)
            output = None
        if output is None:
            while sum(other.size for other in self._open.values()) > TARGET_BYTES:
                self._close(max(self._open, key=lambda other: self._open[other].size))
            output = self._open[key] = _Output(source.kind, schema)
        return output

    def _close(self, alike: _Alike) -> None:
        output = self._open.pop(alike)
        data = output.finish()
        if self._before_delete is not None and len(output.sources) == 1:
            return  # nothing is gained

        footer = footer_hash(footer_of(data))
        sha256 = hashlib.sha256(data).hexdigest()
        key = layout.merged_key(output.kind, self.fingerprint, sha256, footer)
        assert key not in output.sources, "a file with more units has another hash"
        self._before_write()
        self.store.put(key, data)
        self._read_back(key, sha256)
        self.done.written[key] = len(data)
        if self._before_delete is not None:
            self._before_delete()
            self.store.delete(list(output.sources))
            self.done.deleted |= output.sources

    def _read_back(self, key: str, sha256: str) -> None:
        """Raise StoreError unless the store gives back what was written."""
        for _ in range(_READS):
            if hashlib.sha256(self.store.get(key)[0]).hexdigest() == sha256:
                return
        self.store.delete([key])
        raise StoreError(
            f"{self.store.uri_of(key)}: the store gave back other bytes than were written, so it was deleted, and "
            "the files that it was made of are kept; check the store, and run the same command again"
        )


class _Output:
    """Collect one merged file in memory. sources: bytes of the files that its tables came from."""

    def __init__(self, kind: str, schema: pa.Schema) -> None:
        self.kind = kind
        self.sources: dict[str, int] = {}
        self._units: list[tuple[str, str, str, int, int]] = []
        self._sink = io.BytesIO()
        self._writer = pq.ParquetWriter(
            self._sink, schema, compression="zstd", write_page_checksum=True
        )

    @property
    def size(self) -> int:
        return self._sink.tell()

    def has_room_for(self, source: MergeInput) -> bool:
        count = len(self._units) + len(source.units)
        return self.size + source.size <= TARGET_BYTES and count <= MOST_UNITS

    def add(self, unit: MergedUnit, table: pa.Table) -> None:
        self._units.append((unit.unit_id, unit.attempt, unit.sha256, unit.bytes, unit.rows))
        if table.num_rows:
            self._writer.write_table(table.combine_chunks(), row_group_size=table.num_rows)

    def finish(self) -> bytes:
        self._writer.add_key_value_metadata({UNITS: json.dumps(self._units)})
        self._writer.close()
        return self._sink.getvalue()


def replace_stale(
    ledger: Ledger, named: Collection[Stub], before_write: Callable[[], None] = lambda: None
) -> Moved:
    """Write what is still needed of merged files that also hold what no snapshot names any more.

    Nothing is deleted. Once the new files are listed, the old ones are superfluous.

    Args:
        named: Receipts of the newest snapshot.
        before_write: Called before each file is written.
    """
    holdings = find_holdings(ledger, named)
    merger = Merger(ledger.store, ledger.fingerprint, before_write=before_write)
    for kind in layout.DATA_KINDS:
        sources = (
            MergeInput.of_merged(file, units)
            for file, units in holdings.replaced
            if units and file.kind == kind
        )
        merger.move(sources)
    return merger.done


def superfluous(ledger: Ledger, named: Collection[Stub], just_written: Moved) -> list[str]:
    """Return keys of data files that hold nothing but what merged files hold, or nobody names.

    The merged files that are kept instead are read first.

    Args:
        named: Receipts of the newest snapshot.
        just_written: Files that need not be read again.

    Raises:
        NotFoundError: If a file that would be kept is gone, because another command is at work.
        TableError: If one is damaged.
    """
    holdings = find_holdings(ledger, named)
    require_sound(
        ledger.store, [f for f in holdings.relied_on if f.key not in just_written.written]
    )
    # Files that have appeared since `replace_stale` wait for the next time. Nobody has read them, and
    # others may hold nothing but what is in them.
    if any(units for _, units in holdings.replaced):
        return list(holdings.doubled)
    return [*holdings.doubled, *(file.key for file, _ in holdings.replaced)]
