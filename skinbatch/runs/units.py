"""Hold the units of a plan as columns, and give them out one at a time.

There may be hundreds of thousands of units.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from skinbatch.types import MemberSelection, ShardRef

# Most units that exist as Python objects at the same time when one is looked at after the other.
_AT_ONCE = 1000

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


class Units(Sequence[PlannedUnit]):
    """Hold units in the order in which they are handed out, in a quarter of a kilobyte each.

    table: of SCHEMA.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @classmethod
    def of(cls, units: Iterable[PlannedUnit]) -> Units:
        batches = []
        left = iter(units)
        while some := list(islice(left, _AT_ONCE)):
            columns = zip(*map(_row, some), strict=True)
            arrays = [pa.array(column, f.type) for column, f in zip(columns, SCHEMA, strict=True)]
            batches.append(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))
        return cls(pa.Table.from_batches(batches, SCHEMA))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[PlannedUnit]:
        return (_unit(*row) for row in self.columns(*SCHEMA.names))

    @overload
    def __getitem__(self, place: int) -> PlannedUnit: ...
    @overload
    def __getitem__(self, place: slice) -> Units: ...
    def __getitem__(self, place: int | slice) -> PlannedUnit | Units:
        if isinstance(place, slice):
            return Units(self.table.take(pa.array(range(*place.indices(len(self))), pa.int64())))
        first = range(len(self))[place]
        return next(iter(Units(self.table.slice(first, 1))))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Units) and bool(self.table.equals(other.table))

    __hash__ = None  # type: ignore[assignment]

    def columns(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Yield the values of some columns, unit by unit."""
        for batch in self.table.select(list(names)).to_batches(max_chunksize=_AT_ONCE):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def inputs(self) -> Iterator[tuple[str, str]]:
        """Yield (unit_id, inputs_sha256) of every unit."""
        return self.columns("unit_id", "inputs_sha256")

    def same_inputs(self, other: Units) -> bool:
        names = ["unit_id", "inputs_sha256"]
        return bool(self.table.select(names).equals(other.table.select(names)))

    def where(self, chosen: Iterable[bool]) -> Units:
        """Return the chosen units. chosen: one bool for each unit."""
        mask = pa.array(chosen, pa.bool_())
        if pc.all(mask, min_count=0).as_py():  # nothing is done: a copy would double the memory
            return self
        return Units(self.table.filter(mask))

    @property
    def all_loose(self) -> bool:
        """Return whether every unit is of loose photos."""
        return pc.unique(self.table.column("kind")).to_pylist() in ([], ["loose"])

    @property
    def archives(self) -> int:
        """Return the number of shards."""
        return int(pc.count_distinct(self.table.column("key")).as_py())

    @property
    def photos(self) -> int:
        """Return the number of photos in units whose number is known."""
        return int(pc.sum(self.table.column("count")).as_py() or 0)


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
