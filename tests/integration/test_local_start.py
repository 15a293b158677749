"""Test when the local engine's worker is started, and that none is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import skinbatch
from skinbatch.engines.local import LocalPool
from skinbatch.engines.planning import Planner
from skinbatch.errors import UsageError
from skinbatch.runs.plan import Plan
from skinbatch.scoring.assignment import ScoringContext
from tests.faces import face, png, write_tree


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what happens in a run, in order: `worker` is started, or the source is `listed`."""
    events: list[str] = []
    start, plan_source = LocalPool.__init__, Planner.plan_source

    def started(self: LocalPool, context: ScoringContext) -> None:
        events.append("worker")
        start(self, context)
        POOLS.append(self)

    def listed(self: Planner) -> Plan:
        events.append("listed")
        return plan_source(self)

    monkeypatch.setattr(LocalPool, "__init__", started)
    monkeypatch.setattr(Planner, "plan_source", listed)
    POOLS.clear()
    return events


POOLS: list[LocalPool] = []


def test_a_worker_loads_its_models_while_a_new_destination_is_planned(
    tmp_path: Path, fake_pack: str, happened: list[str]
) -> None:
    source = write_tree(tmp_path / "photos", {f"{n}.png": png(face(n, 1)) for n in range(3)})

    report = skinbatch.score(source, tmp_path / "scored", pack=fake_pack, engine="local")
    assert (report.exit_code, report.scored) == (0, 3)
    assert happened == ["worker", "listed"]

    happened.clear()
    report = skinbatch.score(source, tmp_path / "scored", pack=fake_pack, engine="local")
    assert "nothing to do" in report.message
    assert happened == ["listed"]


def test_a_worker_that_gets_no_photo_is_ended(
    tmp_path: Path, fake_pack: str, happened: list[str]
) -> None:
    source = write_tree(tmp_path / "photos", {"notes.txt": b"no photo"})

    with pytest.raises(UsageError, match="no photos found"):
        skinbatch.score(source, tmp_path / "scored", pack=fake_pack, engine="local")

    assert happened == ["worker", "listed"]
    (pool,) = POOLS
    with pytest.raises(ProcessLookupError):
        os.kill(pool._process.pid, 0)
