"""Write and read snapshots, the tables of receipts that count.

Only a snapshot decides what the tables of a destination hold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skinbatch.errors import NotFoundError
from skinbatch.runs import layout, receipts
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.stub import BITS, Stub, Stubs
from skinbatch.storage.store import Store

_PLAN = b"skinbatch.plan"
# Most receipts whose snapshot is made in memory, where it takes about 300 bytes for each.
_IN_MEMORY = 100_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Hold a snapshot.

    name: `<n>.<random>`. plan: name of the plan whose every unit is done by `receipts`, which are
    stubs of a ledger.
    """

    name: str
    plan: str
    receipts: Stubs

    @property
    def rows(self) -> int:
        return sum(stub.rows for stub in self.receipts)


def write(ledger: Ledger, n: int, plan: str, chosen: Collection[Stub]) -> Snapshot:
    """Write snapshot n. The caller has checked that every unit of the plan is done by `chosen`."""
    written = Snapshot(layout.numbered(n), plan, Stubs(ledger.table, chosen))
    if len(chosen) <= _IN_MEMORY or not _put_from_disk(ledger, written):
        data = receipts.to_parquet(ledger.entries(chosen), _metadata(plan))
        ledger.store.put(_key(ledger.fingerprint, written.name), data)
    return written


def _put_from_disk(ledger: Ledger, written: Snapshot) -> bool:
    """Write a snapshot through a temporary file; return False if that file cannot be written."""
    try:
        with tempfile.NamedTemporaryFile(prefix="skinbatch-") as file:
            receipts.write_parquet(file, ledger.entries(written.receipts), _metadata(written.plan))
            file.flush()
            ledger.store.put_file(_key(ledger.fingerprint, written.name), Path(file.name))
    except OSError:  # the disk is full, or there is none
        return False
    return True


def _metadata(plan: str) -> dict[bytes, bytes]:
    return {_PLAN: plan.encode()}


def names(store: Store, fingerprint: str) -> list[str]:
    """Return the names of the snapshots of a scoring, newest first, whether they count or not."""
    prefix = layout.snapshots_prefix(fingerprint)
    keys = (info.key[len(prefix) :] for info in store.list(prefix))
    return layout.newest_first([k.removesuffix(".parquet") for k in keys if k.endswith(".parquet")])


def rows_of_newest(store: Store, fingerprint: str) -> int | None:
    """Return the rows that the newest readable snapshot names, whether it counts or not; None if there is none."""
    for name in names(store, fingerprint):
        try:
            with receipts.open_parquet(store.get(_key(fingerprint, name))[0]) as file:
                return sum(rows for (rows,) in receipts.rows_of(file, "rows"))
        except (NotFoundError, pa.ArrowException, OSError, ValueError, KeyError):
            continue
    return None


def newest_that_counts(ledger: Ledger) -> Snapshot | None:
    """Return the newest snapshot that counts.

    A snapshot counts if every receipt that it names, and every file that those name, is in the
    ledger.
    """
    for name in names(ledger.store, ledger.fingerprint):
        candidate = _counting(ledger, name)
        if candidate is not None:
            return candidate
    return None


def counts(snapshot: Snapshot) -> bool:
    """Return whether every receipt that it names, and every file that those name, exists by the
    ledger.
    """
    return all(stub.complete for stub in snapshot.receipts)


def _counting(ledger: Ledger, name: str) -> Snapshot | None:
    """Read a snapshot by name; None if it is gone, damaged, or does not count."""
    try:
        data, _ = ledger.store.get(_key(ledger.fingerprint, name))
        with receipts.open_parquet(data) as file:
            plan = (file.schema_arrow.metadata or {})[_PLAN].decode()
            return Snapshot(name, plan, Stubs(ledger.table, _named(ledger, file)))
    except (NotFoundError, pa.ArrowException, OSError, ValueError, KeyError):
        return None


def _named(ledger: Ledger, file: pq.ParquetFile) -> Iterator[Stub]:
    """Yield the receipts that a snapshot names. Raises ValueError if one, or a file of it, is gone."""
    for receipt_key, paths in receipts.rows_of(file, "receipt", "files"):
        stub = ledger.at(receipt_key)
        if stub is None or not all(_exists(ledger, stub, path) for path in paths):
            raise ValueError(f"{receipt_key}: it, or a file that it names, is gone")
        yield stub


def _exists(ledger: Ledger, stub: Stub, path: str) -> bool:
    """Return whether a file that a receipt names was listed."""
    kind = path.partition("/")[0]
    there = BITS.get(kind, 0) & stub.present
    return bool(there) and path == layout.data_key(
        kind, ledger.fingerprint, stub.unit_id, stub.attempt
    )


def _key(fingerprint: str, name: str) -> str:
    return f"{layout.snapshots_prefix(fingerprint)}{name}.parquet"
