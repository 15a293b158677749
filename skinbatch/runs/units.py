"""Hold the units of a plan as compressed columns, and give them out one at a time.

There may be millions of units.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skinbatch.types import MemberSelection, ShardRef

# Most units that exist as Python objects at the same time when one is looked at after the other.
_AT_ONCE = 1000
# Units that are compressed together.
PER_PAGE = 8192

# kind: `loose`, or the kind of the shard that key, uri, size and version belong to. selection: JSON of what of the shard is
# wanted, null for everything.
SCHEMA = pa.schema(
    [
        ("unit_id", pa.string()),
        ("inputs_sha256", pa.string()),
        ("count", pa.int64()),
        ("members", pa.string()),
        ("kind", pa.string()),
        ("key", pa.string()),
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("version", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("selection", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """Describe one unit of a plan, without its photos.

    count: photos, None for a shard that was not opened. members: the plan's file that holds its
    photos, "" for shards. shard, start, stop: as in WorkUnit.
    """

    unit_id: str
    inputs_sha256: str
    count: int | None
    members: str = ""
    shard: ShardRef | None = None
    start: int = 0
    stop: int | None = None


class _Page(NamedTuple):
    rows: int
    data: bytes


class Units:
    """Hold units in the order in which they are handed out, in about 90 bytes each."""

    def __init__(self, pages: Sequence[_Page], chosen: NDArray[np.bool_] | None = None) -> None:
        """Create units from `of` or `of_batches`. chosen: (rows of the pages,), None for all."""
        self._pages = pages
        self._chosen = chosen
        self._count = int(
            sum(page.rows for page in pages) if chosen is None else np.count_nonzero(chosen)
        )

    @classmethod
    def of(cls, units: Iterable[PlannedUnit]) -> Units:
        return cls.of_batches(_batches(units))

    @classmethod
    def of_batches(cls, batches: Iterable[pa.RecordBatch]) -> Units:
        """Return the units in batches of SCHEMA, of about PER_PAGE rows each."""
        return cls([_Page(batch.num_rows, _pack(batch)) for batch in batches])

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[PlannedUnit]:
        return (_unit(*row) for row in self.columns(*SCHEMA.names))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Units)
            and len(self) == len(other)
            and all(own == others for own, others in zip(self, other, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]

    def batches(self, *names: str) -> Iterator[pa.RecordBatch]:
        """Yield some columns of the units, batch by batch."""
        first = 0
        for page in self._pages:
            chosen = None if self._chosen is None else self._chosen[first : first + page.rows]
            first += page.rows
            if chosen is None:
                yield _unpack(page.data, names)
            elif chosen.any():
                yield _unpack(page.data, names).filter(pa.array(chosen))

    def columns(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Yield the values of some columns, unit by unit."""
        for batch in self.batches(*names):
            for start in range(0, batch.num_rows, _AT_ONCE):
                some = batch.slice(start, _AT_ONCE)
                yield from zip(*(column.to_pylist() for column in some.columns), strict=True)

    def inputs(self) -> Iterator[tuple[str, str]]:
        """Yield (unit_id, inputs_sha256) of every unit."""
        return self.columns("unit_id", "inputs_sha256")

    def same_inputs(self, other: Units) -> bool:
        return len(self) == len(other) and all(
            own == others for own, others in zip(self.inputs(), other.inputs(), strict=True)
        )

    def where(self, chosen: Iterable[bool]) -> Units:
        """Return the chosen units. chosen: one bool for each unit."""
        mask = np.fromiter(chosen, np.bool_, len(self))
        if self._chosen is not None:
            among_these, mask = mask, self._chosen.copy()
            mask[mask] = among_these
        return Units(self._pages, mask)

    @property
    def all_loose(self) -> bool:
        """Return whether every unit is of loose photos."""
        return all(kind == "loose" for (kind,) in self.columns("kind"))

    @property
    def archives(self) -> int:
        """Return the number of shards. The units of one come one after the other."""
        return sum(key is not None for (key,), _ in groupby(self.columns("key")))

    @property
    def photos(self) -> int:
        """Return the number of photos in units whose number is known."""
        return sum(pc.sum(batch.column("count")).as_py() or 0 for batch in self.batches("count"))


def _batches(units: Iterable[PlannedUnit]) -> Iterator[pa.RecordBatch]:
    left = iter(units)
    while some := list(islice(left, PER_PAGE)):
        columns = zip(*map(_row, some), strict=True)
        arrays = [pa.array(column, f.type) for column, f in zip(columns, SCHEMA, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _pack(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    how = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_stream(sink, batch.schema, options=how) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _unpack(data: bytes, names: Sequence[str]) -> pa.RecordBatch:
    places = [SCHEMA.get_field_index(name) for name in names]
    how = pa.ipc.IpcReadOptions(included_fields=places, use_threads=False)
    return pa.ipc.open_stream(data, options=how).read_next_batch().select(list(names))


def _row(unit: PlannedUnit) -> tuple[object, ...]:
    shard = unit.shard
    what = (
        ("loose",) + 4 * (None,)
        if shard is None
        else (shard.kind, shard.key, shard.uri, shard.size, shard.version)
    )
    selection = (
        None
        if shard is None or shard.selection == MemberSelection()
        else json.dumps(asdict(shard.selection))
    )
    return (
        unit.unit_id,
        unit.inputs_sha256,
        unit.count,
        unit.members,
        *what,
        unit.start,
        unit.stop,
        selection,
    )


def _unit(
    unit_id: str,
    sha256: str,
    count: Any,
    members: str,
    kind: Any,
    key: Any,
    uri: Any,
    size: Any,
    version: Any,
    start: int,
    stop: Any,
    selection: Any,
) -> PlannedUnit:
    shard = (
        None if kind == "loose" else ShardRef(key, uri, kind, size, version, _selection(selection))
    )
    return PlannedUnit(unit_id, sha256, count, members, shard, start, stop)


def _selection(text: str | None) -> MemberSelection:
    if text is None:
        return MemberSelection()
    values = json.loads(text)
    include, exclude, image_column = (
        tuple(values[name]) for name in ("include", "exclude", "image_column")
    )
    return MemberSelection(include, exclude, image_column, values["alone"])
