"""Turn planned units into assignments, each with the older results that it may reuse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from skinbatch.runs import plan
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.plan import Plan
from skinbatch.runs.receipts import family
from skinbatch.runs.stub import Stub
from skinbatch.runs.units import PlannedUnit, Units
from skinbatch.scoring.assignment import Assignment, Reuse
from skinbatch.storage.base import Store
from skinbatch.types import Receipt, WorkUnit


def reuse_of(receipt: Receipt) -> Reuse:
    files = {f.kind: f for f in receipt.files}
    return Reuse(files["images"], files["boxes"], files.get("masks"))


class Assigner:
    """Make the assignments for one plan of one scoring."""

    def __init__(self, store: Store, ledger: Ledger, current: Plan) -> None:
        self.store = store
        self.ledger = ledger
        self.plan = current

    @cached_property
    def _moved(self) -> dict[int | None, list[Stub]]:
        """Return complete receipts of shards that are no longer listed, grouped by shard size."""
        planned = {family(unit_id) for unit_id, _ in self.plan.units.inputs()}
        moved: dict[int | None, list[Stub]] = {}
        for name in sorted({f for f in self.ledger.families() if f.startswith("s") and f not in planned}):
            for stub in self.ledger.of_family(name):
                moved.setdefault(stub.shard_size, []).append(stub)
        return moved

    def left(self) -> Units:
        """Return the units that no receipt proves done."""
        return self.plan.units.where(self.ledger.proof(*inputs) is None for inputs in self.plan.units.inputs())

    def to_score(self, units: Units) -> Iterator[Assignment]:
        """Yield one assignment for each unit.

        Photos are read from the plan as units are handed out.
        """
        works = plan.work_units(self.store, self.ledger.fingerprint, self.plan, units)
        for planned, work in zip(units, works, strict=True):
            older = tuple(reuse_of(self.ledger.receipt(stub)) for stub in self._older(work))
            yield Assignment(work, planned.inputs_sha256, generation=1, reuse=older)

    def _older(self, work: WorkUnit) -> list[Stub]:
        """Return receipts that may hold rows of the unit's photos.

        For loose photos, they are the receipts of the unit's group and of the groups that it was
        split from. For a shard, they are its own receipts and those of unlisted shards of exactly
        the same size, which may be the same shard under another name.
        """
        name = family(work.unit_id)
        groups = [name[:depth] for depth in range(1, len(name) + 1)]
        if work.shard is None:
            return [r for group in groups for r in self.ledger.of_family(group)]
        return [*self.ledger.of_family(name), *self._moved.get(work.shard.size, ())]

    def failed(self) -> list[tuple[PlannedUnit, Receipt]]:
        """Return the receipts that count for the plan and hold rows that are not ok."""
        found = []
        for planned in self.plan.units:
            for stub in self.ledger.proof(planned.unit_id, planned.inputs_sha256) or ():
                if any(status != "ok" for status, _ in stub.statuses):
                    found.append((planned, self.ledger.receipt(stub)))
        return found

    def to_retry(self, failed: Iterable[tuple[PlannedUnit, Receipt]]) -> Iterator[Assignment]:
        """Yield the units, or halves of units, that have failed rows.

        Rows that are ok are copied, and the others are scored again as a new generation.
        """
        failed = list(failed)
        units = list({p.unit_id: p for p, _ in failed}.values())
        receipts: dict[str, list[Receipt]] = {}
        for planned, receipt in failed:
            receipts.setdefault(planned.unit_id, []).append(receipt)
        for work in plan.work_units(self.store, self.ledger.fingerprint, self.plan, units):
            for receipt in receipts[work.unit_id]:
                half = _half(work, receipt)
                yield Assignment(
                    half,
                    receipt.whole_sha256,
                    generation=receipt.generation + 1,
                    reuse=(reuse_of(receipt),),
                    reuse_ok_only=True,
                )


def _half(work: WorkUnit, receipt: Receipt) -> WorkUnit:
    """Return the unit itself, or the half of it that the receipt belongs to."""
    if work.shard is not None:
        return WorkUnit(receipt.unit_id, shard=work.shard, start=receipt.start, stop=receipt.stop)
    for digit in receipt.unit_id.split(".")[1:]:
        work = work.halves()[int(digit)]
    return work
