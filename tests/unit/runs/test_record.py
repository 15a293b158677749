"""Test that a run's record ends as the run did, whichever of its two writers is quicker."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from skinbatch.runs import layout
from skinbatch.runs.record import RunLog, RunRecord
from skinbatch.storage.local import LocalStore
from skinbatch.storage.store import ObjectInfo


class Holding(LocalStore):
    """Hold the first object that is put until it may land."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.on_its_way, self.leave = threading.Event(), threading.Event()

    def put(self, key: str, data: bytes) -> ObjectInfo:
        if not self.on_its_way.is_set():
            self.on_its_way.set()
            assert self.leave.wait(10)
        return super().put(key, data)


@pytest.fixture
def store(tmp_path: Path) -> Holding:
    return Holding(tmp_path)


@pytest.fixture
def log(store: Holding) -> RunLog:
    return RunLog(store, RunRecord("run-1", "score", "local", "0123456789ab", "photos"))


def _begin(write: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=write)
    thread.start()
    return thread


def _state(store: Holding) -> str:
    return str(json.loads(store.get(f"{layout.RUNS}run-1.json")[0])["state"])


def test_a_heartbeat_on_its_way_does_not_land_after_the_end(store: Holding, log: RunLog) -> None:
    heartbeat = _begin(log.beat)
    assert store.on_its_way.wait(10)
    log.record.state = "done"
    end = _begin(log.write)
    end.join(0.5)  # long enough, if the end does not wait for a heartbeat
    store.leave.set()
    heartbeat.join(10)
    end.join(10)
    assert _state(store) == "done"


def test_a_heartbeat_does_not_wait_for_what_the_driver_is_writing(
    store: Holding, log: RunLog
) -> None:
    driver = _begin(log.write)
    assert store.on_its_way.wait(10)
    heartbeat = _begin(log.beat)
    heartbeat.join(5)
    assert not heartbeat.is_alive()
    assert driver.is_alive() and not store.leave.is_set()
    store.leave.set()
    driver.join(10)
    log.record.state = "done"
    log.beat()
    assert _state(store) == "done"
