"""A run's record ends as the run did, whichever of its two writers is quicker."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from skinbatch.runs import layout
from skinbatch.runs.record import RunLog, RunRecord
from skinbatch.storage.base import ObjectInfo
from skinbatch.storage.local import LocalStore


class Holding(LocalStore):
    """The first thing that is put waits until it may land."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.on_its_way, self.leave = threading.Event(), threading.Event()

    def put(self, key: str, data: bytes) -> ObjectInfo:
        if not self.on_its_way.is_set():
            self.on_its_way.set()
            assert self.leave.wait(10)
        return super().put(key, data)


def test_a_heartbeat_on_its_way_does_not_land_after_the_end(tmp_path: Path) -> None:
    store = Holding(tmp_path)
    log = RunLog(store, RunRecord("run-1", "score", "local", "0123456789ab", "photos"))
    heartbeat = threading.Thread(target=log.beat)
    heartbeat.start()
    assert store.on_its_way.wait(10)
    log.record.state = "done"
    end = threading.Thread(target=log.write)
    end.start()
    end.join(0.5)  # long enough for an end that waits for no heartbeat
    store.leave.set()
    heartbeat.join(10)
    end.join(10)
    assert json.loads((tmp_path / f"{layout.RUNS}run-1.json").read_text())["state"] == "done"


def test_a_heartbeat_does_not_wait_for_what_the_driver_is_writing(tmp_path: Path) -> None:
    store = Holding(tmp_path)
    log = RunLog(store, RunRecord("run-1", "score", "local", "0123456789ab", "photos"))
    driver = threading.Thread(target=log.write)
    driver.start()
    assert store.on_its_way.wait(10)
    heartbeat = threading.Thread(target=log.beat)
    heartbeat.start()
    heartbeat.join(5)
    assert not heartbeat.is_alive()
    assert driver.is_alive() and not store.leave.is_set()
    store.leave.set()
    driver.join(10)
    log.record.state = "done"
    log.beat()
    assert json.loads((tmp_path / f"{layout.RUNS}run-1.json").read_text())["state"] == "done"
