"""Turn planned units into assignments, each with the older results that it may reuse."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from skinbatch.engines.setup import Prepared
from skinbatch.errors import StoreError
from skinbatch.runs import plan, snapshot
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.plan import Plan
from skinbatch.runs.stub import Stub, Stubs
from skinbatch.runs.units import PlannedUnit, Units
from skinbatch.scoring.assignment import Assignment, Reuse
from skinbatch.storage.store import Store
from skinbatch.types import Receipt, WorkUnit
from skinbatch.unit_id import UnitId, family_of

if TYPE_CHECKING:
    from skinbatch.engines.chosen_rows import ChosenRows


def reuse_of(receipt: Receipt) -> Reuse:
    files = {f.kind: f for f in receipt.files}
    return Reuse(files["images"], files["boxes"], files.get("masks"))


# Most receipts of an earlier scoring that one unit may read. Two plans of one source differ by more
# only if one of them was much larger, and then a unit would read much that it does not need.
MOST_EARLIER = 8


class EarlierReceipts:
    """Find the receipts of an earlier scoring that may hold a unit's photos.

    note: called with the reason if stages have to be run whose results should have been taken.
    """

    def __init__(self, prepared: Prepared, note: Callable[[str], None]) -> None:
        self.store = prepared.store
        self.fingerprint = prepared.scoring.taken_from or ""
        self.note = note
        self._stages = prepared.context.taken
        self._lost = (
            sorted(set(prepared.scoring.taken).difference(self._stages))
            if prepared.config.run.reuse
            else []
        )
        self._ledger: Ledger | None = None
        self._families: dict[str, list[Stub]] = {}
        self._names: list[str] = []
        self._last: tuple[str, list[Receipt]] = "", []
        self._too_many = False

    def load(self) -> None:
        """Read which receipts there are. Without this, or if they cannot be read, nothing is taken."""
        if self._lost:
            self._run_instead(self._lost, "is gone or has changed")
        if not self._stages:
            return

        try:
            ledger = Ledger.load(self.store, self.fingerprint)
            finished = snapshot.newest_that_counts(ledger)
        except StoreError as e:
            self._run_instead(self._stages, f"cannot be read: {e}")
            return
        if finished is None:
            self._run_instead(self._stages, "has no valid snapshot any more")
            return

        families: dict[str, list[Stub]] = {}
        for stub in finished.receipts:
            if stub.complete:
                families.setdefault(family_of(stub.unit_id), []).append(stub)
        self._ledger, self._families = ledger, families
        self._names = sorted(families)

    def _run_instead(self, stages: Sequence[str], why: str) -> None:
        self.note(f"{', '.join(stages)}: run, because scoring {self.fingerprint} {why}")

    def of(self, work: WorkUnit) -> tuple[Reuse, ...]:
        """Return the files of these receipts; none if nothing is taken or they are too many."""
        if self._ledger is None:
            return ()
        names = self._near(work)
        receipts = [receipt for name in names for receipt in self._receipts_of(name)]
        if work.shard is not None:
            receipts = [receipt for receipt in receipts if _overlap(work, receipt)]
        if len(receipts) <= MOST_EARLIER:
            return tuple(reuse_of(receipt) for receipt in receipts)

        if not self._too_many:
            self._too_many = True
            self.note(
                f"all stages of some units are run, because their photos may be in more than {MOST_EARLIER} "
                f"units of scoring {self.fingerprint}"
            )
        return ()

    def _receipts_of(self, name: UnitId) -> list[Receipt]:
        """Return the receipts of a family, but no more than are needed to see that they are too many."""
        assert self._ledger is not None
        if self._last[0] != name:  # the parts of a shard come one after the other
            stubs = self._families.get(name, ())
            some = stubs if name.is_of_shard else stubs[: MOST_EARLIER + 1]
            self._last = name, [self._ledger.receipt(stub) for stub in some]
        return self._last[1]

    def _near(self, work: WorkUnit) -> list[UnitId]:
        """Return the families in which a unit's photos may be.

        Each scoring splits its groups when it is planned, so the earlier one may have larger or
        smaller groups.
        """
        name = UnitId(work.unit_id).family
        if work.shard is not None:
            return [name]
        near = name.wider_groups
        number = bisect_left(self._names, name)
        while number < len(self._names) and UnitId(self._names[number]).is_within(name):
            near.append(UnitId(self._names[number]))
            number += 1
            if len(near) > len(name) + MOST_EARLIER:  # too many anyway
                break
        return near


class Assigner:
    """Make the assignments for one plan of one scoring.

    earlier: receipts of the scoring from which results of stages are taken.
    """

    def __init__(
        self, store: Store, ledger: Ledger, current: Plan, earlier: EarlierReceipts | None = None
    ) -> None:
        self.store = store
        self.ledger = ledger
        self.plan = current
        self.earlier = earlier

    @cached_property
    def _moved(self) -> dict[int | None, list[Stub]]:
        """Return complete receipts of shards that are no longer listed, grouped by shard size."""
        planned = (unit_id for unit_id, _ in self.plan.units.inputs())
        known = Stubs(self.ledger.table, chain.from_iterable(map(self.ledger.of_unit, planned)))
        unlisted = {family_of(stub.unit_id) for stub in self.ledger if stub not in known}
        unlisted.difference_update(family_of(unit_id) for unit_id, _ in self.plan.units.inputs())

        moved: dict[int | None, list[Stub]] = {}
        for name in sorted(unlisted):
            if UnitId(name).is_of_shard:
                for stub in self.ledger.of_family(name):
                    moved.setdefault(stub.shard_size, []).append(stub)
        return moved

    def left(self) -> Units:
        """Return the units that no receipt proves done."""
        return self.plan.units.where(
            self.ledger.proof(*inputs) is None for inputs in self.plan.units.inputs()
        )

    def to_score(
        self, units: Units, chosen: ChosenRows | None = None, ok_only: bool = False
    ) -> Iterator[Assignment]:
        """Yield one assignment for each unit.

        Photos are read from the plan as units are handed out.

        Args:
            units: of the plan.
            chosen: rows that must not be copied, because a retry has asked for them.
            ok_only: copy no rows of photos that failed, because a retry scores them again.
        """
        again = None if chosen is None else chosen.all_image_ids()
        works = plan.work_units(self.store, self.ledger.fingerprint, self.plan, units)
        for planned, work in zip(units, works, strict=True):
            older = tuple(reuse_of(self.ledger.receipt(stub)) for stub in self._older(work))
            earlier = self.earlier.of(work) if self.earlier else ()
            yield Assignment(
                work,
                planned.inputs_sha256,
                generation=1,
                reuse=older,
                reuse_ok_only=ok_only,
                again=again,
                earlier=earlier,
            )

    def _older(self, work: WorkUnit) -> list[Stub]:
        """Return receipts that may hold rows of the unit's photos.

        For loose photos, they are the receipts of the unit's group and of the groups that it was
        split from. For a shard, they are its own receipts and those of unlisted shards of exactly
        the same size, which may be the same shard under another name.
        """
        name = UnitId(work.unit_id).family
        if work.shard is None:
            groups = [*name.wider_groups, name]
            return [r for group in groups for r in self.ledger.of_family(group)]
        return [*self.ledger.of_family(name), *self._moved.get(work.shard.size, ())]

    def failed(self) -> list[tuple[PlannedUnit, Receipt]]:
        """Return the receipts that count for the plan and hold rows that are not ok."""
        failed = []
        for planned in self.plan.units:
            for stub in self.ledger.proof(planned.unit_id, planned.inputs_sha256) or ():
                if any(status != "ok" for status, _ in stub.statuses):
                    failed.append((planned, self.ledger.receipt(stub)))
        return failed

    def to_retry(
        self, failed: Sequence[tuple[PlannedUnit, Receipt]], chosen: ChosenRows | None = None
    ) -> Iterator[Assignment]:
        """Yield the units, or halves of units, that have failed or chosen rows.

        These rows are scored again as a new generation, and the others are copied.

        chosen: the rows to score again; None for those that are not ok.
        """
        units = list({p.unit_id: p for p, _ in failed}.values())
        receipts: dict[str, list[Receipt]] = {}
        for planned, receipt in failed:
            receipts.setdefault(planned.unit_id, []).append(receipt)
        for work in plan.work_units(self.store, self.ledger.fingerprint, self.plan, units):
            for receipt in receipts[work.unit_id]:
                half = _half(work, receipt)
                again = Assignment(
                    half,
                    receipt.whole_sha256,
                    generation=receipt.generation + 1,
                    reuse=(reuse_of(receipt),),
                )
                if chosen is None:
                    earlier = self.earlier.of(half) if self.earlier else ()
                    yield replace(again, reuse_ok_only=True, earlier=earlier)
                else:
                    rows = chosen.of_receipt(receipt)
                    yield replace(again, again=rows, request=chosen.request)


def _overlap(work: WorkUnit, receipt: Receipt) -> bool:
    """Return whether a receipt has members of a unit of the same shard."""
    ends_before = receipt.stop is not None and receipt.stop <= work.start
    starts_after = work.stop is not None and work.stop <= receipt.start
    return not (ends_before or starts_after)


def _half(work: WorkUnit, receipt: Receipt) -> WorkUnit:
    """Return the unit itself, or the half of it that the receipt belongs to."""
    if work.shard is not None:
        return WorkUnit(receipt.unit_id, shard=work.shard, start=receipt.start, stop=receipt.stop)
    for half in UnitId(receipt.unit_id).path:
        work = work.halves()[half]
    return work
