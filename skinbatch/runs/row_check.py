"""Compare the rows of a snapshot with the plan and with the receipts, for `verify`."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pyarrow as pa

from skinbatch.errors import NotFoundError, TableError
from skinbatch.runs import plan
from skinbatch.runs.data_files import DataFiles
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.merged import read_part
from skinbatch.runs.plan import Plan
from skinbatch.runs.snapshot import Snapshot
from skinbatch.runs.stub import Stub
from skinbatch.runs.units import PlannedUnit
from skinbatch.runs.verify_report import VerifyReport
from skinbatch.storage.store import Store
from skinbatch.tables.parquet import read_columns
from skinbatch.types import DataFile, MergedPart, Receipt
from skinbatch.unit_id import UnitId

_READERS = 8
_NAMED = 20

# (image_id, version) -> rows.
Ids = Counter[tuple[str, str | None]]


class _SeenIds:
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


def check_rows(ledger: Ledger, checked: Plan, current: Snapshot, report: VerifyReport) -> None:
    """Report rows that differ from the plan or from their receipts."""
    store = ledger.store
    by_unit: dict[str, list[Stub]] = {}
    for stub in current.receipts:
        by_unit.setdefault(UnitId(stub.unit_id).planned, []).append(stub)

    seen = _SeenIds()
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

            ids, statuses, boxes = _counted(files, tables)
            seen.add(image_id for image_id, _ in ids.elements())

            report.boxes += boxes
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


def _counted(
    files: Sequence[DataFile], tables: Sequence[pa.Table | None]
) -> tuple[Ids, Counter[str], int]:
    """Return the rows of `images` by name and by status, and the number of boxes."""
    ids: Ids = Counter()
    statuses: Counter[str] = Counter()
    boxes = 0
    for file, table in zip(files, tables, strict=True):
        if table is not None and file.kind == "images":
            statuses.update(table.column("status").to_pylist())
            names, versions = (table.column(name).to_pylist() for name in ("image_id", "version"))
            ids.update(zip(names, versions, strict=True))
        elif table is not None and file.kind == "boxes":
            boxes += table.num_rows
    return ids, statuses, boxes


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


def _read_checked(store: Store, file: DataFile, differences: list[str]) -> pa.Table | None:
    where = store.uri_of(file.path)
    columns = ["image_id", "version", "status"]
    try:
        if isinstance(file, MergedPart):  # `changed_merged` has compared its hash
            table = read_part(store, file, columns)
        else:
            data, _ = store.get(file.path)
            if hashlib.sha256(data).hexdigest() != file.sha256:
                differences.append(
                    f"{where}: its bytes are not those that were written (its SHA-256 is not the receipt's)"
                )
            table = read_columns(data, columns)
    except NotFoundError:
        differences.append(f"{where}: the file is gone")
        return None
    except TableError as e:
        differences.append(str(e))
        return None
    except (pa.ArrowException, OSError) as e:
        differences.append(f"{where}: not readable as Parquet: {e}")
        return None
    if file.kind == "images" and table.column_names != columns:
        differences.append(f"{where}: has no columns image_id, version and status")
        return None
    if table.num_rows != file.rows:
        differences.append(f"{where}: {table.num_rows} rows, but its receipt records {file.rows}")
    return table


def _compare(unit_id: str, ids: Ids, expected: Ids, differences: list[str]) -> None:
    _name(differences, f"unit {unit_id}: planned but without a row", expected - ids)
    _name(
        differences,
        f"unit {unit_id}: a row that the plan does not have",
        Counter({k: n for k, n in ids.items() if k not in expected}),
    )


def _compare_shard(unit: PlannedUnit, ids: Ids, counted: int, differences: list[str]) -> None:
    assert unit.shard is not None
    prefix = f"{unit.shard.key}/"
    if sum(ids.values()) != counted:
        differences.append(
            f"unit {unit.unit_id}: {sum(ids.values())} rows of {unit.shard.key}, but its receipt records {counted}"
        )
    _name(
        differences,
        f"unit {unit.unit_id}: a row of another shard",
        Counter(k for k in ids if not k[0].startswith(prefix)),
    )
    wrong = Counter(k for k in ids if k[1] != unit.shard.version)
    _name(
        differences,
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


def _name(differences: list[str], what: str, keys: Ids) -> None:
    if not keys:
        return
    ids = sorted(image_id for image_id, _ in keys)
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    differences.append(f"{what}: {', '.join(ids[:_NAMED])}{more}")
