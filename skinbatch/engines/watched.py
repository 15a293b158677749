"""Count and log the scheduler's events on their way to the driver."""

from __future__ import annotations

import logging
from typing import Any

from skinbatch.engines.pool import Ready
from skinbatch.engines.scheduler import Listener
from skinbatch.logs import event
from skinbatch.runs.record import RunLog
from skinbatch.scoring.assignment import Assignment, UnitDone, UnitFailed
from skinbatch.types import WorkUnit


class Watched:
    """Observe the scheduler in the driver's place, and pass every event on."""

    def __init__(self, driver: Listener, log: RunLog) -> None:
        self.driver = driver
        self.log = log

    def _count(self, **more: int) -> None:
        with self.log.lock:
            for name, number in more.items():
                setattr(self.log.record, name, getattr(self.log.record, name) + number)

    def ready(self, ready: Ready) -> None:
        event("worker_ready", worker=ready.worker, host=ready.host, device=ready.device)
        self.driver.ready(ready)

    def done(self, assignment: Assignment, outcome: UnitDone) -> None:
        self._count(**outcome.traffic)
        unit = assignment.unit.unit_id
        if assignment.verdict is not None:
            self._count(photos_isolated=1)
        for image_id, status, error in outcome.failures:
            event(
                "photo_failed",
                logging.WARNING,
                unit_id=unit,
                image_id=image_id,
                status=status,
                error=error,
            )
        receipt = outcome.receipt
        fields: dict[str, Any] = {"failed": sum(outcome.failed.values()), **outcome.traffic}
        if receipt is not None:
            fields |= {"photos": sum(receipt.statuses.values()), "statuses": dict(receipt.statuses)}
            fields |= {
                "copied": receipt.copied,
                "attempt": receipt.attempt,
                "generation": receipt.generation,
            }
            fields |= {"host": receipt.host, "seconds": receipt.timings.get("unit")}
        event("unit_done", unit_id=unit, **fields)
        for ref in outcome.changed:
            event("photo_changed", unit_id=unit, image_id=ref.image_id)
        for image_id in outcome.vanished:
            event("photo_vanished", unit_id=unit, image_id=image_id)
        self.driver.done(assignment, outcome)

    def drifted(self, assignment: Assignment, outcome: UnitFailed) -> None:
        self._count(**outcome.traffic)
        event("unit_drifted", unit_id=assignment.unit.unit_id, message=outcome.message)
        self.driver.drifted(assignment, outcome)

    def again(self, assignment: Assignment, reason: str, outcome: UnitFailed | None = None) -> None:
        """Count and log a unit that is tried again. outcome: of the attempt, if there was one."""
        self._count(units_retried=1, **(outcome.traffic if outcome else {}))
        event("unit_retried", logging.WARNING, unit_id=assignment.unit.unit_id, message=reason)
        self.driver.again(assignment, reason, outcome)

    def said(self, text: str) -> None:
        self.driver.said(text)

    def troubled(self, text: str) -> None:
        self.driver.troubled(text)

    def failed(self, unit_id: str, message: str) -> None:
        event("unit_failed", logging.ERROR, unit_id=unit_id, message=message)
        self.driver.failed(unit_id, message)

    def died(self, assignment: Assignment, reason: str, timed_out: bool) -> None:
        event("worker_died", logging.WARNING, unit_id=assignment.unit.unit_id, message=reason)
        self.driver.died(assignment, reason, timed_out)

    def halved(self, unit: WorkUnit) -> None:
        event("unit_halved", unit_id=unit.unit_id)
        self.driver.halved(unit)

    def stop_reason(self) -> str | None:
        return self.driver.stop_reason()

    def tick(self, photos_in_flight: int) -> None:
        self.driver.tick(photos_in_flight)
