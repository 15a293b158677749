"""Count the events of a run in its record, which `status` shows."""

from __future__ import annotations

import time

from skinbatch.engines.events import (
    RunEvent,
    Tick,
    UnitCommitted,
    UnitDrifted,
    UnitHalved,
    UnitOpen,
    UnitRetried,
    WorkerDied,
    WorkersReleased,
)
from skinbatch.engines.pool import WorkerReady
from skinbatch.engines.worker_time import WorkerTime
from skinbatch.runs.record import RunLog, RunRecord
from skinbatch.scoring.assignment import Outcome


class Recorder:
    """Keep the counts and times of the record. The time begins when the object is made."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._started = time.monotonic()
        self._worker_time = WorkerTime()
        self._ready: set[int] = set()

    def hear(self, event: RunEvent) -> None:
        """Count an event. The heartbeat may write the record at any time, on its own thread."""
        with self._log.lock:
            self._count(self._log.record, event)

    def _count(self, record: RunRecord, event: RunEvent) -> None:
        match event:
            case WorkerReady():
                self._worker_time.ready(event)
                self._ready.add(event.worker)
                record.workers = len(self._ready)
                machine = f"{event.host}: {event.device}"
                if machine not in record.machines:
                    record.machines.append(machine)
            case WorkersReleased():
                self._worker_time.released(event.workers)
            case UnitCommitted():
                _count_committed(record, event)
            case UnitDrifted():
                _count_traffic(record, event.outcome)
            case UnitRetried():
                record.units_retried += 1
                _count_traffic(record, event.outcome)
            case UnitHalved():
                record.units_halved += 1
            case UnitOpen():
                record.units_failed += 1
                _count_traffic(record, event.outcome)
            case WorkerDied():
                record.worker_deaths += 1
                _count_traffic(record, event.outcome)
            case Tick():
                photos = record.photos_scored + record.photos_copied
                record.seconds = time.monotonic() - self._started
                record.photos_per_second = photos / max(1e-9, record.seconds)
                record.worker_seconds = self._worker_time.seconds()


def _count_committed(record: RunRecord, event: UnitCommitted) -> None:
    outcome, receipt = event.outcome, event.outcome.receipt
    _count_traffic(record, outcome)
    record.units_done += 1
    record.photos_isolated += event.assignment.verdict is not None
    record.photos_vanished += len(outcome.vanished)
    record.photos_changed += len(outcome.changed)
    record.skipped.update(outcome.skipped)
    if receipt is None:
        return

    record.photos_copied += receipt.copied
    record.photos_scored += sum(receipt.statuses.values()) - receipt.copied
    record.statuses.update(receipt.statuses)
    record.taken.update(receipt.taken)
    record.timings.update(receipt.timings)


def _count_traffic(record: RunRecord, outcome: Outcome | None) -> None:
    """Add what a worker counted during an attempt, see storage.traffic."""
    for name, number in (outcome.traffic if outcome is not None else {}).items():
        setattr(record, name, getattr(record, name) + number)
