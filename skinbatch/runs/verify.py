"""Prove that every listed photo has exactly one row and that no file has changed since."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from skinbatch.errors import NotFoundError, TableError
from skinbatch.runs import destination, plan, snapshot, strays
from skinbatch.runs.data_files import DataFiles
from skinbatch.runs.graded import check_gradings
from skinbatch.runs.holdings import changed_merged, left_behind
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.merged import read_part
from skinbatch.runs.plan import Plan
from skinbatch.runs.snapshot import Snapshot
from skinbatch.runs.stub import Stub
from skinbatch.runs.taken import check_taken
from skinbatch.runs.units import PlannedUnit
from skinbatch.storage.store import Store
from skinbatch.tables.parquet import read_columns
from skinbatch.types import DataFile, MergedPart, Receipt
from skinbatch.unit_id import UnitId

_READERS = 8
_NAMED = 20

# (image_id, version) -> rows.
Ids = Counter[tuple[str, str | None]]


class _Seen:
    """Hold the image_ids of a whole destination as hashes of 8 bytes: 800 MB for 100 million rows."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, image_ids: Iterable[str]) -> None:
        self._hashes.extend(map(hash, image_ids))

    def doubled(self) -> set[int]:
        """Return the hashes that were added more than once. Different names may have the same hash."""
        hashes = np.frombuffer(self._hashes, np.int64)
        if len(hashes) == 0:
            return set()
        hashes.sort()  # in place: a copy would double the memory
        return set(np.unique(hashes[1:][hashes[1:] == hashes[:-1]]).tolist())


@dataclass(slots=True)
class VerifyReport:
    """Hold the result of `verify`.

    Attributes:
        fingerprint: The scoring that was checked.
        snapshot, plan: Names of the snapshot and its plan; None if the scoring is not finished.
        photos: Photos that the plan lists, members of shards included.
        rows, boxes, files: Rows of `images`, rows of `boxes`, and data files that were read.
        units_left: Planned units without a receipt.
        differences: One sentence for each problem, with the names of files and photos; empty if
            everything agrees.
    """

    fingerprint: str
    snapshot: str | None = None
    plan: str | None = None
    photos: int = 0
    rows: int = 0
    boxes: int = 0
    files: int = 0
    units_left: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """Return 0 if everything agrees, else 5."""
        return 5 if self.differences else 0


def verify(store: Store, scoring: str | None = None) -> VerifyReport:
    """Compare plan, snapshot, receipts and files of one scoring.

    Every receipt and every data file is read once, merged files twice. Files with results that were
    taken from an earlier scoring are read once more, beside the earlier files.
    """
    destination.require_destination(store)
    damaged = destination.damaged_scorings(store)
    fingerprint = destination.choose_scoring(store, scoring, damaged)
    ledger = Ledger.load(store, fingerprint)
    report = VerifyReport(fingerprint)
    report.differences += [*damaged.values(), *strays.foreign(store, fingerprint)]
    say = report.differences.append
    for key in sorted(ledger.unreadable):
        say(
            f"{store.uri_of(key)}: cannot be read as a receipt, a fold, a snapshot or a merged file"
        )
    names = snapshot.names(store, fingerprint)
    current = snapshot.newest_that_counts(ledger)
    if names and (current is None or current.name != names[0]):
        say(
            f"the newest snapshot {names[0]} does not count: it is damaged, or a receipt or file that it names is gone"
        )
    plans = plan.names(store, fingerprint)
    if not plans:
        say("there is no plan: nothing has been listed here")
        return report
    try:
        newest = plan.read(store, fingerprint, plans[0])
    except (NotFoundError, TableError) as e:
        say(str(e))
        return report
    if current is not None and current.plan != newest.name:
        with suppress(NotFoundError, TableError):  # two drivers may have written equal plans
            named = plan.read(store, fingerprint, current.plan)
            newest = named if named.units.same_inputs(newest.units) else newest
    if current is None or current.plan != newest.name:
        left = newest.units.where(ledger.proof(*inputs) is None for inputs in newest.units.inputs())
        report.units_left, photos = len(left), left.photos
        say(
            f"not finished: {len(left)} of {len(newest.units)} units of plan {newest.name} are left"
            + (f", {photos} photos" if photos else "")
            + "; run the same `skinbatch score` again to finish"
        )
    report.differences += [
        *_broken_receipts(ledger),
        *strays.changed_receipts(ledger),
        *changed_merged(ledger),
        *check_gradings(store, fingerprint, current),
    ]
    if current is None:
        return report
    report.snapshot, report.plan = current.name, current.plan
    report.differences += [*_unnamed(ledger, current), *check_taken(ledger, current)]
    try:
        checked = (
            newest if current.plan == newest.name else plan.read(store, fingerprint, current.plan)
        )
    except NotFoundError:
        say(f"snapshot {current.name} names plan {current.plan}, which does not exist any more")
        return report
    except TableError as e:
        say(str(e))
        return report
    try:
        _check_rows(ledger, checked, current, report)
    except (NotFoundError, TableError) as e:  # a file of the plan: the expected photos are unknown
        say(f"plan {checked.name}: {e}")
    if current.rows == 0:
        say(_nothing(store, fingerprint, plans, checked))
    return report


def _nothing(store: Store, fingerprint: str, plans: list[str], checked: Plan) -> str:
    """Return why a scoring without rows proves nothing, and what earlier plans listed."""
    nothing = "there is nothing to prove: not one photo has a row"
    for name in plans:
        with suppress(NotFoundError, TableError):
            listed = plan.read(store, fingerprint, name)
            if listed.units.photos:
                loose = [unit for unit in listed.units if unit.shard is None and unit.count]
                first = next(iter(plan.work_units(store, fingerprint, listed, loose[:1])), None)
                example = (
                    f", such as {first.images[0].image_id},"
                    if first is not None and first.images
                    else ""
                )
                return (
                    f"{nothing}; plan {name} listed {listed.units.photos} photos{example} and none of them is left: "
                    "compare the listed names with the source (encoding, upper and lower case, prefix, bucket)"
                )
    return f"{nothing}; the {len(checked.units)} listed shards hold no photos"


def _broken_receipts(ledger: Ledger) -> list[str]:
    """Return a sentence for each receipt whose files are gone."""
    sentences = []
    for stub in ledger:
        if stub.listed and stub.whole is not None and not stub.complete:
            gone = ", ".join(stub.files(ledger.fingerprint, stub.needed & ~stub.present))
            sentences.append(f"{_uri(ledger, stub)}: a receipt whose files are gone: {gone}")
    return sentences


def _unnamed(ledger: Ledger, current: Snapshot) -> list[str]:
    """Return a sentence for each data file or receipt that the snapshot does not name."""
    named = set(current.receipts)
    foreign = sorted(_uri(ledger, stub) for stub in ledger.receipts_besides(named) if stub.complete)
    return [
        *(
            f"{ledger.store.uri_of(key)}: a data file that the snapshot does not name"
            for key in sorted(set(ledger.files_besides(named)))
        ),
        *(f"{uri}: a receipt that the snapshot does not name" for uri in foreign),
        *(f"{ledger.store.uri_of(key)}: {why}" for key, why in left_behind(ledger, named)),
    ]


def _uri(ledger: Ledger, stub: Stub) -> str:
    return ledger.store.uri_of(stub.key(ledger.fingerprint))


def _check_rows(ledger: Ledger, checked: Plan, current: Snapshot, report: VerifyReport) -> None:
    store = ledger.store
    by_unit: dict[str, list[Stub]] = {}
    for stub in current.receipts:
        by_unit.setdefault(UnitId(stub.unit_id).planned, []).append(stub)
    seen = _Seen()
    report.files = len(ledger.merged)
    with ThreadPoolExecutor(_READERS) as pool:
        for unit, expected in _expected(store, ledger.fingerprint, checked):
            unit_receipts = [ledger.receipt(stub) for stub in by_unit.pop(unit.unit_id, ())]
            if not unit_receipts:
                report.differences.append(
                    f"unit {unit.unit_id}: it is planned, but the snapshot names no receipt of it"
                )
                continue
            files = [f for r in unit_receipts for f in r.files]
            tables = list(pool.map(lambda f: _read_checked(store, f, report.differences), files))
            report.files += sum(not isinstance(file, MergedPart) for file in files)
            ids: Ids = Counter()
            statuses: Counter[str] = Counter()
            for file, table in zip(files, tables, strict=True):
                if table is None:
                    continue
                if file.kind == "images":
                    statuses.update(table.column("status").to_pylist())
                    columns = (
                        table.column("image_id").to_pylist(),
                        table.column("version").to_pylist(),
                    )
                    ids.update(zip(*columns, strict=True))
                    seen.add(columns[0])
                elif file.kind == "boxes":
                    report.boxes += table.num_rows
            report.rows += sum(ids.values())
            recorded = sum((Counter(r.statuses) for r in unit_receipts), Counter())
            if None not in tables and statuses != recorded:
                report.differences.append(
                    f"unit {unit.unit_id}: rows {dict(statuses)}, its receipts record {dict(recorded)}"
                )
            if unit.shard is None:
                report.photos += len(expected)
                _compare(unit.unit_id, ids, expected, report.differences)
            else:
                counted = sum(r.inputs_count for r in unit_receipts)
                report.differences += _gaps(unit, unit_receipts)
                report.photos += counted
                _compare_shard(unit, ids, counted, report.differences)
    report.differences += [
        f"unit {u}: the snapshot names a receipt of it, but it is not planned" for u in by_unit
    ]
    if doubled := seen.doubled():
        report.differences += _doubled_rows(ledger, current, doubled)


def _doubled_rows(ledger: Ledger, current: Snapshot, hashes: set[int]) -> list[str]:
    """Return a sentence about image_ids with more than one row.

    hashes: of those image_ids. The names are read again, because other names may share a hash.
    """
    files = DataFiles(ledger.store, ledger.fingerprint)
    units: dict[str, list[str]] = defaultdict(list)
    for stub in current.receipts:
        with suppress(NotFoundError, TableError, pa.ArrowException, OSError):
            table = files.read("images", stub, ["image_id"])
            for name in table.column("image_id").to_pylist():
                if hash(name) in hashes:
                    units[name].append(stub.unit_id)

    doubled = sorted((name, sorted(set(of))) for name, of in units.items() if len(of) > 1)
    if not doubled:
        return []
    named = [f"{name} (unit {' and '.join(of)})" for name, of in doubled[:_NAMED]]
    more = f" and {len(doubled) - _NAMED} more" if len(doubled) > _NAMED else ""
    return [f"more than one row: {', '.join(named)}{more}"]


def _expected(store: Store, fingerprint: str, checked: Plan) -> Iterator[tuple[PlannedUnit, Ids]]:
    loose = [u for u in checked.units if u.shard is None]
    for unit, work in zip(loose, plan.work_units(store, fingerprint, checked, loose), strict=True):
        yield unit, Counter((r.image_id, r.version) for r in work.images)
    for unit in checked.units:
        if unit.shard is not None:
            yield unit, Counter()


def _read_checked(store: Store, file: DataFile, say: list[str]) -> pa.Table | None:
    where = store.uri_of(file.path)
    columns = ["image_id", "version", "status"]
    try:
        if isinstance(file, MergedPart):  # `changed_merged` has compared its hash
            table = read_part(store, file, columns)
        else:
            data, _ = store.get(file.path)
            if hashlib.sha256(data).hexdigest() != file.sha256:
                say.append(
                    f"{where}: its bytes are not those that were written (its SHA-256 is not the receipt's)"
                )
            table = read_columns(data, columns)
    except NotFoundError:
        say.append(f"{where}: the file is gone")
        return None
    except TableError as e:
        say.append(str(e))
        return None
    except (pa.ArrowException, OSError) as e:
        say.append(f"{where}: not readable as Parquet: {e}")
        return None
    if file.kind == "images" and table.column_names != columns:
        say.append(f"{where}: has no columns image_id, version and status")
        return None
    if table.num_rows != file.rows:
        say.append(f"{where}: {table.num_rows} rows, but its receipt records {file.rows}")
    return table


def _compare(unit_id: str, ids: Ids, expected: Ids, say: list[str]) -> None:
    _name(say, f"unit {unit_id}: planned but without a row", expected - ids)
    _name(
        say,
        f"unit {unit_id}: a row that the plan does not have",
        Counter({k: n for k, n in ids.items() if k not in expected}),
    )


def _compare_shard(unit: PlannedUnit, ids: Ids, counted: int, say: list[str]) -> None:
    assert unit.shard is not None
    prefix = f"{unit.shard.key}/"
    if sum(ids.values()) != counted:
        say.append(
            f"unit {unit.unit_id}: {sum(ids.values())} rows of {unit.shard.key}, but its receipt records {counted}"
        )
    _name(
        say,
        f"unit {unit.unit_id}: a row of another shard",
        Counter(k for k in ids if not k[0].startswith(prefix)),
    )
    wrong = Counter(k for k in ids if k[1] != unit.shard.version)
    _name(
        say,
        f"unit {unit.unit_id}: rows of another version than {unit.shard.version}, which is planned",
        wrong,
    )


def _gaps(unit: PlannedUnit, unit_receipts: list[Receipt]) -> list[str]:
    """Return a sentence if a unit's receipts do not join to its planned range, or lack members."""
    sentences = []
    ranges: list[tuple[int, int | None]] = [(r.start, r.stop) for r in unit_receipts]
    ranges.sort(key=lambda r: (r[0], r[1] is None))
    ends = [unit.start, *(stop for _, stop in ranges)]
    if [start for start, _ in ranges] != ends[:-1] or ends[-1] != unit.stop:
        sentences.append(
            f"unit {unit.unit_id}: receipts of members {ranges}, but {unit.start} to {unit.stop} are planned"
        )
    counted = sum(r.inputs_count for r in unit_receipts)
    if unit.count is not None and counted != unit.count:
        sentences.append(
            f"unit {unit.unit_id}: {counted} members were found, but {unit.count} are planned"
        )
    return sentences


def _name(say: list[str], what: str, keys: Ids) -> None:
    if not keys:
        return
    ids = sorted(image_id for image_id, _ in keys)
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    say.append(f"{what}: {', '.join(ids[:_NAMED])}{more}")
