"""Test what becomes of the events of a run: in the record, in the notes and in the log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from skinbatch.config import StorageSettings
from skinbatch.engines.drift import Drift
from skinbatch.engines.event_log import log_event
from skinbatch.engines.events import (
    Events,
    RunEvent,
    StoreTrouble,
    UnitCommitted,
    UnitDrifted,
    UnitHalved,
    UnitOpen,
    UnitRetried,
    WorkerDied,
)
from skinbatch.engines.notes import Notes
from skinbatch.engines.pool import PoolMessage, WorkerReady
from skinbatch.engines.presenter import SilentPresenter
from skinbatch.engines.recorder import Recorder
from skinbatch.runs.listed import collect
from skinbatch.runs.record import RunLog, RunRecord
from skinbatch.scoring.assignment import Assignment, UnitDone, UnitFailed
from skinbatch.storage.local import LocalStore
from skinbatch.storage.locate import Locator
from skinbatch.types import ImageRef, Receipt, Status, WorkUnit

UNIT = WorkUnit(
    "g0", (ImageRef("a.jpg", "/p/a.jpg", 1, "1"), ImageRef("b.jpg", "/p/b.jpg", 1, "1"))
)
ASSIGNMENT = Assignment(UNIT, UNIT.inputs_sha256)
RECEIPT = Receipt(
    unit_id="g0",
    generation=1,
    attempt="0123456789ab",
    inputs_sha256=UNIT.inputs_sha256,
    whole_sha256=UNIT.inputs_sha256,
    inputs_count=2,
    start=0,
    stop=None,
    files=(),
    statuses={"ok": 1, "corrupt": 1},
    copied=1,
    timings={"unit": 2.0},
    host="here",
    written_at="2026-01-01T00:00:00Z",
)
DONE = UnitDone(
    RECEIPT,
    vanished=("c.jpg",),
    failed={"corrupt": 1},
    failures=(("b.jpg", "corrupt", "no photo"),),
    notes=("segmenter: file gone",),
    traffic={"requests_retried": 3},
)
STORE_FAILED = UnitFailed("store", "s3://b/k: 503 SlowDown", traffic={"requests_throttled": 2})
DRIFTED = UnitFailed("drift", "a.jpg changed", changed=(UNIT.images[0],))


@pytest.mark.parametrize(
    ("event", "counts"),
    [
        (WorkerReady(0, "cpu", "here"), {"machines": ["here: cpu"], "workers": 1}),
        (
            UnitCommitted(ASSIGNMENT, DONE),
            {
                "units_done": 1,
                "photos_scored": 1,
                "photos_copied": 1,
                "photos_vanished": 1,
                "statuses": {"ok": 1, "corrupt": 1},
                "requests_retried": 3,
                "timings": {"unit": 2.0},
            },
        ),
        (
            UnitCommitted(
                Assignment(UNIT, UNIT.inputs_sha256, verdict=(Status.CRASHED, "died")),
                UnitDone(None),
            ),
            {"units_done": 1, "photos_isolated": 1},
        ),
        (
            UnitRetried(ASSIGNMENT, "503", STORE_FAILED),
            {"units_retried": 1, "requests_throttled": 2},
        ),
        (UnitRetried(ASSIGNMENT, "the machine is gone"), {"units_retried": 1}),
        (UnitHalved(UNIT), {"units_halved": 1}),
        (UnitOpen("g0", "503"), {"units_failed": 1}),
        (WorkerDied(UNIT, "SIGSEGV", False), {"worker_deaths": 1}),
        (PoolMessage("no worker has started yet"), {}),
    ],
)
def test_the_record_counts_what_happens(
    event: RunEvent, counts: dict[str, object], tmp_path: Path
) -> None:
    log = RunLog(LocalStore(str(tmp_path)), RunRecord("r", "skinbatch", "local", "f", "photos"))
    before = {name: getattr(log.record, name) for name in RunRecord.__slots__}
    before |= {"machines": [], "statuses": {}, "timings": {}}  # these change in place
    Recorder(log).hear(event)
    after = {name: getattr(log.record, name) for name in RunRecord.__slots__}
    assert {name: value for name, value in after.items() if value != before[name]} == counts


def notes_of(*events: RunEvent) -> list[str]:
    presenter = SilentPresenter()
    notes = Notes(presenter)
    for event in events:
        notes.hear(event)
    return presenter.notes


def test_a_kind_of_trouble_is_noted_once() -> None:
    assert notes_of(
        StoreTrouble("s3://b/1: 503 SlowDown"),
        StoreTrouble("s3://b/2: 503 SlowDown"),
        UnitRetried(ASSIGNMENT, STORE_FAILED.message, STORE_FAILED),
        StoreTrouble("s3://b/1: no route to host"),
    ) == [
        "s3://b/1: 503 SlowDown; trying again for a while",
        "s3://b/1: no route to host; trying again for a while",
    ]


def test_only_the_first_open_units_have_a_note_of_their_own() -> None:
    notes = notes_of(*(UnitOpen(f"g{n}", "Traceback\n503") for n in range(9)))
    assert notes[0] == "unit g0 stays open: 503"
    assert notes[4:] == ["unit g4 stays open: 503; further ones are only counted"]


def test_a_unit_that_is_committed_later_makes_room_for_a_note() -> None:
    opened = [UnitOpen(f"g{n}", "503") for n in range(5)]
    notes = notes_of(*opened, UnitCommitted(ASSIGNMENT, UnitDone(None)), UnitOpen("g9", "503"))
    assert notes[-1].startswith("unit g9 stays open")


def test_a_photo_that_changes_again_after_a_new_plan_leaves_its_unit_open() -> None:
    events, heard = Events(), list[RunEvent]()
    drift = Drift(events.publish)
    events.subscribe(drift.hear, heard.append)
    first = UnitDrifted(ASSIGNMENT, DRIFTED)
    events.publish(first)
    assert drift and heard == [first]

    drift.apply(collect(UNIT.images), Locator(StorageSettings()))
    events.publish(first)
    assert heard == [first, UnitOpen("g0", "a.jpg changed"), first]


def test_the_log_names_the_photos_of_a_committed_unit(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "skinbatch"):
        log_event(UnitCommitted(ASSIGNMENT, DONE))
    assert [(record.getMessage(), record.levelname) for record in caplog.records] == [
        ("photo_failed", "WARNING"),
        ("unit_done", "INFO"),
        ("photo_vanished", "INFO"),
    ]
    done = caplog.records[1].fields  # type: ignore[attr-defined]
    assert (done["photos"], done["failed"], done["copied"], done["seconds"]) == (2, 1, 1, 2.0)
    assert done["requests_retried"] == 3
