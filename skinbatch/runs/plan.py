"""Divide a listed source into units.

A plan is immutable. The newest plan defines what the source holds.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, groupby

import pyarrow as pa
import pyarrow.parquet as pq

from skinbatch.errors import ClaimError, NotFoundError, TableError
from skinbatch.lookahead import ahead
from skinbatch.runs import layout
from skinbatch.runs.hash_groups import Group, first_bits, key_hash, split
from skinbatch.runs.listed import LISTED_SCHEMA, Listing, refs
from skinbatch.runs.receipts import open_parquet
from skinbatch.runs.row_buffer import gathered, hashes_of, in_file_order, sort_by_hash, take_rows
from skinbatch.runs.units import PER_PAGE, SCHEMA, PlannedUnit, Units
from skinbatch.storage.store import Store
from skinbatch.types import ShardRef, WorkUnit
from skinbatch.unit_id import UnitId, family_of

MEMBERS_PER_FILE = 100_000
PART_MEMBERS = 512
# Most parts of one zip. Each part reads the whole directory of the file, so a file of millions of
# members is done sooner in fewer, larger parts.
MOST_PARTS = 128
PART_BYTES = 64 << 20
# Shards over these sizes are opened to be divided.
PARQUET_BYTES = 64 << 10
# Number of shards whose members are counted at the same time. Each takes a few round trips to the
# store.
_OPENED = 8
_UNITS = "units.parquet"
_WAY_OUT = "delete it, and run the same `skinbatch score` again"
# Metadata of that file: sizes in bytes of the others.
_SIZES = "skinbatch.sizes"

_MEMBERS_SCHEMA = LISTED_SCHEMA.append(pa.field("unit_id", pa.string()))


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold a plan. name: `<n>.<random>`. units: in the order in which they are handed out. sizes:
    bytes of the files with their photos.
    """

    name: str
    units: Units
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def number(self) -> int:
        return layout.number_of(self.name)[0]

    @property
    def photos(self) -> int:
        """Return the number of photos in units whose number is known."""
        return self.units.photos


class PlanWriter:
    """Divide a listing into units and write plan n + 1, unless the newest plan is equal."""

    def __init__(
        self, store: Store, fingerprint: str, count_members: Callable[[ShardRef], int]
    ) -> None:
        """Create a writer. count_members is called from several threads at once."""
        self.store = store
        self.fingerprint = fingerprint
        self.count_members = count_members

    def write(
        self, listing: Listing, newest: Plan | None, bits: int | None, anew: bool = False
    ) -> Plan:
        """Write a plan and return it, or return `newest` if it is equal.

        Args:
            newest: the plan whose groups are kept.
            bits: the destination's leading bits, None at the first plan.
            anew: write also if the newest plan is equal.
        """
        members, loose = self._loose_units(listing, newest, bits)
        units = Units.of(chain(loose, self._shard_units(listing.shards, newest)))
        if newest is not None and not anew and units.same_inputs(newest.units):
            return newest
        before = names(self.store, self.fingerprint)
        name = layout.numbered(layout.number_of(before[0])[0] + 1 if before else 1)
        prefix = f"{layout.plans_prefix(self.fingerprint)}{name}/"
        sizes = {n: self.store.put(prefix + n, data).size for n, data in members}
        table = pa.Table.from_batches(units.batches(*SCHEMA.names), SCHEMA)
        stamped = table.replace_schema_metadata({_SIZES: json.dumps(sizes)})
        self.store.put(prefix + _UNITS, _parquet(stamped))
        return Plan(name, units, sizes)

    def _loose_units(
        self, listing: Listing, newest: Plan | None, bits: int | None
    ) -> tuple[Iterator[tuple[str, bytes]], list[PlannedUnit]]:
        """Divide loose photos into units.

        Returns the files with the photos, by name, made as they are asked for, and the units.
        """
        photos, forget = listing.photos, listing.forget
        hashes = hashes_of(photos, forget)
        if not in_file_order(hashes):
            photos, forget = gathered(photos.to_batches(), photos.schema)
            hashes = hashes_of(photos, forget)
        order, hashes = sort_by_hash(photos, hashes)

        known = [UnitId(u.unit_id).bits for u in newest.units if u.shard is None] if newest else []
        groups = split(hashes, first_bits(len(order)) if bits is None else bits, known)
        files = list(_files(groups))
        units: list[PlannedUnit] = []
        for number, file in enumerate(files):
            first = file[0].start
            table = take_rows(photos, order[first : file[-1].stop])
            for group in file:
                rows = table.slice(group.start - first, group.stop - group.start)
                unit = WorkUnit(UnitId.of_group(group.bits), refs(rows))
                name = _members_name(number)
                units.append(PlannedUnit(unit.unit_id, unit.inputs_sha256, rows.num_rows, name))
            forget()

        def members() -> Iterator[tuple[str, bytes]]:
            for number, file in enumerate(files):
                table = take_rows(photos, order[file[0].start : file[-1].stop])
                ids = [UnitId.of_group(g.bits) for g in file for _ in range(g.start, g.stop)]
                table = table.append_column("unit_id", pa.array(ids, pa.string()))
                yield _members_name(number), _parquet(table)
                forget()

        return members(), units

    def _shard_units(
        self, shards: Iterable[ShardRef], newest: Plan | None
    ) -> Iterator[PlannedUnit]:
        """Yield units of shards, ascending by unit_id, as in the newest plan, which is read
        alongside.
        """
        planned = (u for u in newest.units if u.shard is not None) if newest else iter(())
        before = groupby(planned, key=lambda u: family_of(u.unit_id))
        name, units = next(before, (None, iter(())))

        def known() -> Iterator[tuple[ShardRef, list[PlannedUnit]]]:
            nonlocal name, units
            for own, shard in sorted(
                ((_name_of(s), s) for s in shards), key=lambda named: named[0]
            ):
                while name is not None and name < own:
                    name, units = next(before, (None, iter(())))
                yield shard, [u for u in units if u.shard == shard] if name == own else []

        def cut(entry: tuple[ShardRef, list[PlannedUnit]]) -> list[PlannedUnit]:
            return entry[1] or self._cut(entry[0])

        def quick(entry: tuple[ShardRef, list[PlannedUnit]]) -> bool:
            return bool(entry[1]) or not _to_be_cut(entry[0])

        for _, parts in ahead(known(), cut, _OPENED, at_once=quick):
            yield from parts

    def _cut(self, shard: ShardRef) -> list[PlannedUnit]:
        """Return one unit for a shard, or ranges of a large shard that can be read from the middle."""
        name = _name_of(shard)
        count = self.count_members(shard) if _to_be_cut(shard) else None
        if count is None or count <= 2 * PART_MEMBERS:
            return [_planned(WorkUnit(name, shard=shard), count)]
        members = max(PART_MEMBERS, math.ceil(count / MOST_PARTS))
        starts = range(0, count, members)
        return [
            _planned(
                WorkUnit(
                    UnitId(name).part(n),
                    shard=shard,
                    start=a,
                    stop=None if a == starts[-1] else a + members,
                ),
                min(members, count - a),
            )
            for n, a in enumerate(starts)
        ]


def _files(groups: Sequence[Group]) -> Iterator[list[Group]]:
    """Yield the groups of each file of photos."""
    file: list[Group] = []
    for group in groups:
        file.append(group)
        if group.stop - file[0].start >= MEMBERS_PER_FILE:
            yield file
            file = []
    if file:
        yield file


def _members_name(number: int) -> str:
    return f"members-{number:05d}.parquet"


def names(store: Store, fingerprint: str) -> list[str]:
    """Return the names of complete plans of a scoring, newest first."""
    prefix = layout.plans_prefix(fingerprint)
    return _complete(info.key[len(prefix) :] for info in store.list(prefix))


def _complete(keys: Iterable[str]) -> list[str]:
    return layout.newest_first([key.split("/")[0] for key in keys if key.endswith(f"/{_UNITS}")])


def read(store: Store, fingerprint: str, name: str) -> Plan:
    """Read a plan by name, without its photos.

    Raises NotFoundError if it is gone and TableError if it is damaged.
    """
    key = f"{layout.plans_prefix(fingerprint)}{name}/{_UNITS}"
    with _opened(store, key, SCHEMA, may_lack="selection") as file:
        units = Units.of_batches(_unit_batches(file))
        metadata = file.metadata.metadata or {}
    try:
        sizes = json.loads(metadata.get(_SIZES.encode(), b"{}"))
    except (ValueError, RecursionError):
        sizes = None
    if not isinstance(sizes, dict):  # a footer has no checksum
        raise TableError(
            f"{store.uri_of(key)}: damaged: {_SIZES} in its footer cannot be read; {_WAY_OUT}"
        )
    return Plan(name, units, sizes)


def _unit_batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Yield the units of a plan. Those of older plans have no selection."""
    names = [name for name in SCHEMA.names if name in file.schema_arrow.names]
    for batch in file.iter_batches(PER_PAGE, columns=names, use_threads=False):
        columns = batch.columns
        if len(names) < len(SCHEMA.names):
            columns = [*columns, pa.nulls(batch.num_rows, SCHEMA.types[-1])]
        yield pa.RecordBatch.from_arrays(columns, SCHEMA.names)


def newest_alike(store: Store, fingerprint: str, own: Plan) -> Plan:
    """Return the newest plan, which is `own` unless another driver planned the same inputs at the
    same time.

    Raises ClaimError (exit code 7) if the newest plan has other inputs.
    """
    newest = layout.newest_first([own.name, *names(store, fingerprint)])[0]
    if newest == own.name:
        return own
    try:
        other = read(store, fingerprint, newest)
    except (NotFoundError, TableError):
        other = None
    if other is None or not other.units.same_inputs(own.units):
        raise ClaimError(
            f"{store.uri}: another run has written plan {newest}, which differs from this run's {own.name}; nothing is "
            "lost, run the same command again"
        )
    return other


def newest_whole(store: Store, fingerprint: str) -> tuple[Plan | None, str | None]:
    """Return the newest plan whose files exist in the sizes they were written in, without their
    photos.

    The second value describes the damage of the newest plan of all, and is None if it was
    returned.
    """
    prefix = layout.plans_prefix(fingerprint)
    there = {info.key[len(prefix) :]: info.size for info in store.list(prefix)}
    damage = None
    for name in _complete(there):
        try:
            candidate = read(store, fingerprint, name)
        except (TableError, NotFoundError) as e:
            damage = damage or str(e)
            continue
        lost = [
            f"{name}/{file}"
            for file, size in candidate.sizes.items()
            if there.get(f"{name}/{file}") != size
        ]
        if not lost:
            return candidate, damage
        damage = (
            damage or f"{store.uri_of(prefix + lost[0])}: gone, or not as long as it was written"
        )
    return None, damage


def work_units(
    store: Store, fingerprint: str, plan: Plan, units: Iterable[PlannedUnit]
) -> Iterator[WorkUnit]:
    """Yield planned units with their photos, in the plan's order, holding one file of photos at a
    time.
    """
    loaded = ""
    ranges: dict[str, tuple[int, int]] = {}
    table = pa.table({})
    for unit in units:
        if unit.shard is not None:
            yield WorkUnit(unit.unit_id, shard=unit.shard, start=unit.start, stop=unit.stop)
            continue
        if unit.members != loaded:
            table, loaded = read_members(store, fingerprint, plan, unit.members), unit.members
            ranges = _ranges(table.column("unit_id").to_pylist())
        start, stop = ranges[unit.unit_id]
        yield WorkUnit(unit.unit_id, refs(table.slice(start, stop - start)))


def read_members(store: Store, fingerprint: str, plan: Plan, file_name: str) -> pa.Table:
    """Return image_id, uri, size, version, meta (JSON text) and unit_id of the photos in a file of
    the plan.
    """
    return _read(
        store, f"{layout.plans_prefix(fingerprint)}{plan.name}/{file_name}", _MEMBERS_SCHEMA
    )


def _read(store: Store, key: str, schema: pa.Schema) -> pa.Table:
    """Return the table in a file of a plan."""
    with _opened(store, key, schema) as file:
        return file.read(columns=schema.names, use_threads=False)


@contextmanager
def _opened(
    store: Store, key: str, schema: pa.Schema, may_lack: str = ""
) -> Iterator[pq.ParquetFile]:
    """Open a file of a plan. Raises TableError if it is damaged, also while it is read.

    may_lack: a column that older plans do not have.
    """
    data, _ = store.get(key)
    try:
        with open_parquet(data) as file:
            names = [name for name in file.schema_arrow.names if name in schema.names]
            if names not in (schema.names, [name for name in schema.names if name != may_lack]):
                raise TableError(
                    f"{store.uri_of(key)}: damaged: it does not have the columns of a plan; {_WAY_OUT}"
                )
            yield file
    except (pa.ArrowException, OSError) as e:
        raise TableError(f"{store.uri_of(key)}: damaged: {e}; {_WAY_OUT}") from None


def read_listing(store: Store, fingerprint: str, plan: Plan) -> Listing:
    """Return the listing that a plan was made from."""
    files = sorted({u.members for u in plan.units if u.members})
    tables = [
        read_members(store, fingerprint, plan, name).drop_columns("unit_id") for name in files
    ]
    shards = {u.shard.key: u.shard for u in plan.units if u.shard is not None}
    photos = pa.concat_tables(tables) if tables else LISTED_SCHEMA.empty_table()
    return Listing(photos, tuple(shards.values()))


def _ranges(unit_ids: list[str]) -> dict[str, tuple[int, int]]:
    ranges: dict[str, tuple[int, int]] = {}
    start = 0
    for n in range(1, len(unit_ids) + 1):
        if n == len(unit_ids) or unit_ids[n] != unit_ids[start]:
            ranges[unit_ids[start]] = (start, n)
            start = n
    return ranges


def _name_of(shard: ShardRef) -> str:
    return str(UnitId.of_shard(key_hash(shard.key)))  # exact text is sorted faster


def _to_be_cut(shard: ShardRef) -> bool:
    if shard.kind == "parquet":  # its size is no measure of its rows
        return shard.size > PARQUET_BYTES
    return shard.kind != "tar" and shard.size > PART_BYTES


def _planned(unit: WorkUnit, count: int | None) -> PlannedUnit:
    return PlannedUnit(
        unit.unit_id, unit.inputs_sha256, count, "", unit.shard, unit.start, unit.stop
    )


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    # Statistics lie in page headers, which no checksum covers, and nobody reads them.
    pq.write_table(
        table, sink, compression="zstd", write_statistics=False, write_page_checksum=True
    )
    return sink.getvalue()
