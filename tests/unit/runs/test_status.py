"""Test what `status` tells about a run whose driver is gone."""

from pathlib import Path

from skinbatch.runs import destination
from skinbatch.runs.destination import Destination, Scoring, now
from skinbatch.runs.record import RunLog, RunRecord
from skinbatch.runs.status import read_status
from skinbatch.storage.local import LocalStore
from skinbatch.tables.schema import SCHEMA_VERSION
from tests.unit.runs.support import FP, photos, write_plan


def test_a_retry_whose_driver_is_silent_is_lost_and_continues_with_its_own_command(
    tmp_path: Path,
) -> None:
    store = LocalStore(str(tmp_path))
    destination.write_destination(store, Destination("/photos", 2, SCHEMA_VERSION))
    scoring = Scoring(FP, {}, {}, "fake", {}, ("acne",), (), save_masks=False, created=now())
    destination.write_scoring(store, scoring)
    write_plan(store, photos(20))
    log = RunLog(store, RunRecord("20260101T000000-0", "skinbatch retry out", "local", FP, ""))
    log.write()
    assert read_status(store).state == "running"

    key = "_skinbatch/runs/20260101T000000-0.json"
    stale = store.get(key)[0].replace(log.record.updated.encode(), b"2026-01-01T00:00:00Z")
    (tmp_path / key).write_bytes(stale)
    status = read_status(store)
    assert status.state == "lost"
    assert "run the same command again" in status.message
