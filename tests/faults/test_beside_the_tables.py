"""Test that failures beside the tables cost no row: records that cannot be written, readers that die."""

from __future__ import annotations

from pathlib import Path

import pytest

import skinbatch
from skinbatch.config import parse_config
from skinbatch.engines.driver import drive
from skinbatch.engines.pool import Death, PoolEvent, WorkerReady
from skinbatch.engines.presenter import SilentPresenter
from skinbatch.engines.run import Run
from skinbatch.engines.setup import prepare
from skinbatch.engines.totals import STOP_AFTER_DEATHS
from skinbatch.errors import StoreError
from skinbatch.runs import receipts
from skinbatch.runs.run_report import RunReport
from skinbatch.scoring.assignment import Assignment, ScoringContext
from skinbatch.storage.local import LocalStore
from skinbatch.storage.store import ObjectInfo
from tests.faces import face, png, rows, tar_bytes, write_tree
from tests.faults.in_process import InProcessEngine, InProcessPool


def run(tree: Path, dest: Path, pack: str, engine: InProcessEngine) -> RunReport:
    config = parse_config({"pack": pack, "engine": {"name": "local", "cpus_per_worker": 1.0}})
    return drive(Run(prepare(str(tree), str(dest), config), SilentPresenter(), "test"), engine)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    members = {f"{n}.png": png(face(n, 1, 50)) for n in range(4)}
    photos = {f"{n:02}.png": png(face(n % 5, n % 3, n)) for n in range(20)}
    return write_tree(tmp_path / "photos", {**photos, "s.tar": tar_bytes(members)})


@pytest.mark.parametrize("kind", ["folds", "attempts"])
def test_a_note_that_cannot_be_written_ends_no_run(
    tree: Path, tmp_path: Path, fake_pack: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    put, refused = LocalStore.put, []

    def refusing(self: LocalStore, key: str, data: bytes) -> ObjectInfo:
        if f"/{kind}/" in key:
            refused.append(key)
            raise StoreError("503 for a moment")
        return put(self, key, data)

    monkeypatch.setattr(receipts, "FOLD_EVERY", 1)
    monkeypatch.setattr(LocalStore, "put", refusing)
    assert run(tree, tmp_path / "out", fake_pack, InProcessEngine(deaths={2})).exit_code == 0
    assert refused
    assert skinbatch.verify(tmp_path / "out").differences == []
    assert len(rows(tmp_path / "out")) == 24


class Deadly(InProcessEngine):
    """Kill workers at every attempt, or as soon as they read member 2 of an archive."""

    def __init__(self, everything: bool) -> None:
        super().__init__()
        self.everything = everything

    def start(self, context: ScoringContext) -> InProcessPool:
        everything = self.everything

        class Pool(InProcessPool):
            def wait(self, timeout_s: float) -> list[PoolEvent]:
                if self._given is None or not deadly(self._given):
                    return super().wait(timeout_s)
                self._given = None
                return [Death(0, "SIGSEGV"), WorkerReady(0, *self._worker.describe())]

        def deadly(given: Assignment) -> bool:
            unit = given.unit
            if everything:
                return given.verdict is None
            return (
                unit.shard is not None and not given.unread and (unit.stop is None or unit.stop > 2)
            )

        return Pool(context, frozenset(), frozenset())


def test_members_that_kill_their_reader_have_rows_without_being_read(
    tree: Path, tmp_path: Path, fake_pack: str
) -> None:
    out = tmp_path / "out"
    assert run(tree, out, fake_pack, Deadly(everything=False)).exit_code == 3
    assert skinbatch.verify(out).differences == []
    found = {
        image_id: row["status"]
        for image_id, row in rows(out).items()
        if image_id.startswith("s.tar/")
    }
    assert found == {
        "s.tar/0.png": "ok",
        "s.tar/1.png": "ok",
        "s.tar/#crashed-2": "crashed",
        "s.tar/#crashed-3": "crashed",
    }


def test_a_pack_that_kills_its_workers_stops_the_run(tmp_path: Path, fake_pack: str) -> None:
    tree = write_tree(
        tmp_path / "photos", {f"{n:03}.png": png(face(n % 5, n % 3, n)) for n in range(60)}
    )
    report = run(tree, tmp_path / "out", fake_pack, Deadly(everything=True))
    assert report.exit_code == 6
    assert (
        f"{STOP_AFTER_DEATHS} workers died and no photo was scored; the last one: SIGSEGV"
        in report.message
    )
