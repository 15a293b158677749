"""Provide a destination on disk, and units that are committed without any model."""

import hashlib
from collections.abc import Sequence

from skinbatch.runs import layout, receipts, snapshot
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.listed import collect
from skinbatch.runs.plan import Plan, PlanWriter
from skinbatch.runs.snapshot import Snapshot
from skinbatch.runs.stub import Stub
from skinbatch.storage.local import LocalStore
from skinbatch.tables.parquet import write_parquet
from skinbatch.tables.rows import Row, boxes_table, images_table
from skinbatch.types import DataFile, ImageRef, ImageResult, Receipt, ShardRef, Status, WorkUnit

FP = "0123456789ab"


def photos(count: int, version: str = "1") -> list[ImageRef]:
    return [
        ImageRef(f"{k:05d}.jpg", f"/photos/{k:05d}.jpg", 100 + k, version) for k in range(count)
    ]


def write_plan(
    store: LocalStore, refs: Sequence[ImageRef | ShardRef], newest: Plan | None = None
) -> Plan:
    writer = PlanWriter(store, FP, count_members=lambda shard: 0)
    return writer.write(collect(refs), newest, 2)


def commit(
    store: LocalStore,
    unit: WorkUnit,
    *,
    whole: str | None = None,
    generation: int = 1,
    status: Status = Status.OK,
) -> Receipt:
    """Write the tables and the receipt of a unit of loose photos, as a worker does."""
    attempt = layout.fresh()
    rows = [Row(ref, unit.unit_id, ImageResult(status, sha256="0" * 64)) for ref in unit.images]
    files = []
    for kind, table in (
        ("images", images_table(rows, ["acne"], ["prob_rosacea"])),
        ("boxes", boxes_table(rows)),
    ):
        data = write_parquet(table, {})
        path = layout.data_key(kind, FP, unit.unit_id, attempt)
        store.put(path, data)
        files.append(
            DataFile(kind, path, hashlib.sha256(data).hexdigest(), len(data), table.num_rows)
        )
    receipt = Receipt(
        unit_id=unit.unit_id,
        generation=generation,
        attempt=attempt,
        inputs_sha256=unit.inputs_sha256,
        whole_sha256=whole or unit.inputs_sha256,
        inputs_count=len(unit.images),
        start=0,
        stop=None,
        files=tuple(files),
        statuses={status.value: len(rows)},
        copied=0,
        timings={},
        host="here",
        written_at="2026-01-01T00:00:00Z",
    )
    store.put(receipts.key_of(FP, receipt), receipts.to_json(receipt))
    return receipt


def full(ledger: Ledger, stubs: Sequence[Stub] | None) -> list[Receipt] | None:
    """Return the receipts as they were written."""
    return None if stubs is None else [ledger.receipt(stub) for stub in stubs]


def proof(store: LocalStore, unit_id: str, whole_sha256: str) -> list[Receipt] | None:
    """Return the receipts by which a unit is done, as a new reader of the destination finds them."""
    ledger = Ledger.load(store, FP)
    return full(ledger, ledger.proof(unit_id, whole_sha256))


def stubs_of(ledger: Ledger, named: Sequence[Receipt]) -> list[Stub]:
    found = [ledger.find(r.unit_id, r.generation, r.attempt) for r in named]
    return [stub for stub in found if stub is not None]


def write_snapshot(
    store: LocalStore, n: int, plan: str, named: Sequence[Receipt]
) -> tuple[Ledger, Snapshot]:
    ledger = Ledger.load(store, FP)
    return ledger, snapshot.write(ledger, n, plan, stubs_of(ledger, named))


def write_fold(store: LocalStore, n: int, named: Sequence[Receipt]) -> None:
    ledger = Ledger.load(store, FP)
    receipts.write_fold(store, FP, n, ledger.entries(stubs_of(ledger, named)))
