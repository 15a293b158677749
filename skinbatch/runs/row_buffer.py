"""Gather millions of listed photos as columns, in little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skinbatch.runs.hash_groups import key_hash
from skinbatch.runs.spill import Place, Spill

# Most photos that are kept in memory. More are divided by the leading bits of their hashes, so that
# the photos of a group lie close together in the file.
IN_MEMORY = 200_000
_BITS = 6
# Most photos that exist as Python objects at a time.
_AT_ONCE = 50_000


class RowBuffer:
    """Gather rows with a column image_id: in memory, or in a temporary file if they are many."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0
        self._spill = Spill(in_memory=0)
        self._parts: list[list[bytes | Place]] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Add some rows."""
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows > IN_MEMORY:
            self._divide()

    def table(self) -> tuple[pa.Table, Callable[[], None]]:
        """Return all rows, and a function that frees the memory of those that were looked at.

        Rows in a file are ordered by the leading bits of their hashes, and otherwise as they came.
        """
        if not self._parts:
            return pa.Table.from_batches(self._waiting, self._schema), lambda: None

        self._divide()
        pa.default_memory_pool().release_unused()
        views = (self._spill.view(piece) for part in self._parts for piece in part)
        batches = [pa.ipc.read_record_batch(pa.py_buffer(view), self._schema) for view in views]
        return pa.Table.from_batches(batches, self._schema), self._spill.forget

    def _divide(self) -> None:
        """Put the waiting rows into the file, part by part."""
        self._parts = self._parts or [[] for _ in range(1 << _BITS)]
        rows = pa.Table.from_batches(self._waiting, self._schema)
        part = _part_of(hashes_of(rows))
        for number in np.unique(part):
            some = rows.take(pa.array(np.flatnonzero(part == number))).combine_chunks()
            for batch in some.to_batches():
                self._parts[number].append(self._spill.keep(batch.serialize().to_pybytes()))
        self._waiting, self._rows = [], 0


def gathered(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema
) -> tuple[pa.Table, Callable[[], None]]:
    """Return the rows of all batches as RowBuffer.table does."""
    rows = RowBuffer(schema)
    for batch in batches:
        rows.add(batch)
    return rows.table()


def hashes_of(photos: pa.Table, forget: Callable[[], None] = lambda: None) -> NDArray[np.uint64]:
    """Return (N,) the hashes by which photos are grouped. forget: as in RowBuffer.table."""
    hashes = np.empty(photos.num_rows, np.uint64)
    first = 0
    for batch in photos.select(["image_id"]).to_batches(max_chunksize=_AT_ONCE):
        hashes[first : first + len(batch)] = [key_hash(key) for key in batch.column(0).to_pylist()]
        first += len(batch)
        forget()
    return hashes


def in_file_order(hashes: NDArray[np.uint64]) -> bool:
    """Return whether photos with these hashes are few, or ordered as in the file."""
    part = _part_of(hashes).astype(np.int8)
    return len(part) <= IN_MEMORY or bool(np.all(np.diff(part) >= 0))


def sort_by_hash(
    photos: pa.Table, hashes: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the rows in the order of their hashes, and these hashes.

    Of photos with the same image_id, only the first is there.
    """
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    ids = photos.column("image_id")
    again = [
        n + 1
        for n in np.flatnonzero(hashes[1:] == hashes[:-1])
        if ids[order[n]] == ids[order[n + 1]]
    ]
    return (np.delete(order, again), np.delete(hashes, again)) if again else (order, hashes)


def take_rows(photos: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Return some rows of a large table, which lie close together."""
    first = int(rows.min())
    near = photos.slice(first, int(rows.max()) + 1 - first).combine_chunks()
    return near.take(pa.array(rows - first))


def _part_of(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return hashes >> np.uint64(64 - _BITS)
