"""Test that a sample is measured although workers lose their machines."""

from __future__ import annotations

from dataclasses import replace

from skinbatch.engines.pool import Death, Finished, PoolEvent, WorkerReady
from skinbatch.engines.presenter import SilentPresenter
from skinbatch.engines.rehearsal import Rehearser
from skinbatch.scoring.assignment import Assignment, UnitDone
from skinbatch.types import ImageRef, WorkUnit
from tests.unit.engines.test_events import RECEIPT
from tests.unit.engines.test_scheduler import ScriptedPool

PHOTOS = sum(RECEIPT.statuses.values())


def unit(name: str) -> WorkUnit:
    return WorkUnit(name, (ImageRef(name, f"/p/{name}", 1, "1"),))


class Draining(ScriptedPool):
    """Score every unit, and lose all machines once: those that are idle and the one at work."""

    def __init__(self, size: int, lost_at: str) -> None:
        super().__init__(size)
        self.lost_at = lost_at
        self.begun: list[str] = []

    def submit(self, worker: int, assignment: Assignment) -> None:
        name = assignment.unit.unit_id
        self.begun.append(name)
        if name != self.lost_at or self.begun.count(name) > 1:
            receipt = replace(RECEIPT, unit_id=name)
            self.events.append(Finished(worker, UnitDone(receipt)))
            return
        for place in range(self.size):
            self.events += [
                Death(place, "its node is being drained", machine_lost=True),
                WorkerReady(place, "cpu", "there"),
            ]

    def wait(self, timeout_s: float) -> list[PoolEvent]:
        """Leave out what workers would have finished after the loss."""
        events = super().wait(timeout_s)
        if not any(isinstance(event, Death) for event in events):
            return events
        lost = max(n for n, event in enumerate(events) if isinstance(event, Death))
        return events[: lost + 2]


def test_a_sample_is_measured_although_all_its_machines_are_drained() -> None:
    pool = Draining(size=4, lost_at="u2")
    units = [unit(f"u{n}") for n in range(6)]
    found = Rehearser(pool, units, unit("warm"), 60.0, SilentPresenter()).run()
    assert len(found.units) == 6
    assert sum(measured.photos for measured in found.units) == 6 * PHOTOS
    assert found.problems == ()
    assert pool.begun.count("u2") == pool.begun.count("u3") == 2
    assert pool.begun.count("u0") == 1
