"""Test the totals of a run while it works."""

from __future__ import annotations

from skinbatch.config import RunSettings
from skinbatch.engines.events import Tick, UnitCommitted, UnitHalved
from skinbatch.engines.presenter import RunProgress
from skinbatch.engines.totals import Before, Totals
from skinbatch.scoring.assignment import Assignment, UnitDone
from skinbatch.types import ImageRef, WorkUnit


def test_the_halves_of_a_unit_count_as_two() -> None:
    photos = tuple(ImageRef(name, f"/p/{name}", 1, "1") for name in ("a.jpg", "b.jpg"))
    unit = WorkUnit("g0", photos)
    shown: list[RunProgress] = []
    totals = Totals(RunSettings(), Before(2, 3, 0, 1), shown.append)

    totals.hear(UnitHalved(unit))
    totals.hear(Tick(0))
    for half in unit.halves():
        totals.hear(UnitCommitted(Assignment(half, unit.inputs_sha256), UnitDone(None)))
    totals.hear(Tick(0))
    assert [(seen.units_done, seen.units_total) for seen in shown] == [(1, 4), (3, 4)]
