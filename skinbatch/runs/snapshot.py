"""The table of receipts that count. Only a snapshot decides what an archive's tables hold."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from skinbatch.errors import NotFoundError
from skinbatch.runs import layout, receipts
from skinbatch.runs.receipts import Ledger
from skinbatch.storage.base import Store
from skinbatch.tables.parquet import read_columns
from skinbatch.types import Receipt

_PLAN = b"skinbatch.plan"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """name: `<n>.<random>`. plan: the name of the plan whose every unit is done by `receipts`."""

    name: str
    plan: str
    receipts: tuple[Receipt, ...]

    @property
    def rows(self) -> int:
        return sum(receipts.rows_of(r) for r in self.receipts)


def write(store: Store, fingerprint: str, n: int, plan: str, chosen: Iterable[Receipt]) -> Snapshot:
    """Write snapshot n. The caller has seen that every unit of the plan is done by `chosen`."""
    snapshot = Snapshot(layout.numbered(n), plan, tuple(chosen))
    table = receipts.to_table(fingerprint, snapshot.receipts).replace_schema_metadata({_PLAN: plan.encode()})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    store.put(_key(fingerprint, snapshot.name), sink.getvalue())
    return snapshot


def read(store: Store, fingerprint: str, name: str) -> Snapshot:
    """NotFoundError if it is gone, ValueError if it is not a snapshot."""
    try:
        table = read_columns(store.get(_key(fingerprint, name))[0])
        plan = (table.schema.metadata or {})[_PLAN].decode()
        return Snapshot(name, plan, tuple(receipts.from_table(table)))
    except (pa.ArrowInvalid, KeyError, TypeError) as e:
        raise ValueError(f"{store.uri_of(_key(fingerprint, name))} is not a snapshot: {e}") from e


def names(store: Store, fingerprint: str) -> list[str]:
    """Snapshots of a scoring, newest first, whether they count or not."""
    prefix = layout.snapshots_prefix(fingerprint)
    keys = (info.key[len(prefix) :] for info in store.list(prefix))
    return layout.newest_first([k.removesuffix(".parquet") for k in keys if k.endswith(".parquet")])


def newest_that_counts(store: Store, ledger: Ledger) -> Snapshot | None:
    """The newest snapshot whose every receipt, and every file that those name, exists."""
    for name in names(store, ledger.fingerprint):
        try:
            snapshot = read(store, ledger.fingerprint, name)
        except (NotFoundError, ValueError):
            continue
        if counts(snapshot, ledger):
            return snapshot
    return None


def counts(snapshot: Snapshot, ledger: Ledger) -> bool:
    """Every receipt that it names, and every file that those name, exists."""
    return all(
        receipts.key_of(ledger.fingerprint, r) in ledger.receipt_keys and ledger.complete(r) for r in snapshot.receipts
    )


def _key(fingerprint: str, name: str) -> str:
    return f"{layout.snapshots_prefix(fingerprint)}{name}.parquet"
