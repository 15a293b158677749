"""Write the events of a run to the log, for machines to read."""

from __future__ import annotations

import logging
from typing import Any

from skinbatch.engines.events import (
    RunEvent,
    UnitCommitted,
    UnitDrifted,
    UnitHalved,
    UnitOpen,
    UnitRetried,
    WorkerDied,
)
from skinbatch.engines.pool import WorkerReady
from skinbatch.logs import event as log


def log_event(event: RunEvent) -> None:
    """Write an event to the log, with its photos if it has any."""
    match event:
        case WorkerReady():
            log("worker_ready", worker=event.worker, host=event.host, device=event.device)
        case UnitCommitted():
            _log_committed(event)
        case UnitDrifted():
            unit_id = event.assignment.unit.unit_id
            log("unit_drifted", unit_id=unit_id, message=event.outcome.message)
        case UnitRetried():
            unit_id = event.assignment.unit.unit_id
            log("unit_retried", logging.WARNING, unit_id=unit_id, message=event.reason)
        case UnitHalved():
            log("unit_halved", unit_id=event.unit.unit_id)
        case UnitOpen():
            log("unit_failed", logging.ERROR, unit_id=event.unit_id, message=event.message)
        case WorkerDied():
            unit_id = event.unit.unit_id
            log("worker_died", logging.WARNING, unit_id=unit_id, message=event.reason)


def _log_committed(event: UnitCommitted) -> None:
    unit_id, outcome = event.assignment.unit.unit_id, event.outcome
    for image_id, status, error in outcome.failures:
        photo = {"unit_id": unit_id, "image_id": image_id, "status": status, "error": error}
        log("photo_failed", logging.WARNING, **photo)

    fields: dict[str, Any] = {"failed": sum(outcome.failed.values()), **outcome.traffic}
    receipt = outcome.receipt
    if receipt is not None:
        fields |= {
            "photos": sum(receipt.statuses.values()),
            "statuses": dict(receipt.statuses),
            "copied": receipt.copied,
            "attempt": receipt.attempt,
            "generation": receipt.generation,
            "host": receipt.host,
            "seconds": receipt.timings.get("unit"),
        }
    log("unit_done", unit_id=unit_id, **fields)

    for ref in outcome.changed:
        log("photo_changed", unit_id=unit_id, image_id=ref.image_id)
    for image_id in outcome.vanished:
        log("photo_vanished", unit_id=unit_id, image_id=image_id)
