"""Report how a run ended: write its record for the last time, and return the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from skinbatch.engines.run import Run
from skinbatch.runs import layout
from skinbatch.runs.run_report import RunReport
from skinbatch.runs.snapshot import Snapshot
from skinbatch.runs.stub import Stub


@dataclass(frozen=True, slots=True)
class Ending:
    """Describe how a run ended.

    state: as in RunRecord. snapshot: the one that shows every photo; None if units are left.
    """

    state: str
    exit_code: int
    message: str
    snapshot: Snapshot | None = None
    nothing_to_do: bool = False


def report(run: Run, ending: Ending) -> RunReport:
    """Write the record as it is at the end, and return the report of the run."""
    work = run.work
    shown: Collection[Stub]
    if ending.snapshot is not None:
        shown, left = ending.snapshot.receipts, 0
    elif work is not None:
        shown, left = work.done(), work.units_left()
    else:
        shown, left = [], 0
    run.quietly(lambda: run.close_record(ending.state, ending.exit_code, ending.message))

    statuses: Counter[str] = Counter()
    for stub in shown:
        for status, count in stub.statuses:
            statuses[status] += count
    record, cost, prices = run.log.record, run.log.cost(), run.prepared.config.prices
    return RunReport(
        exit_code=ending.exit_code,
        message=ending.message,
        destination=run.store.uri,
        fingerprint=run.fingerprint,
        images=run.store.uri_of(layout.data_prefix("images", run.fingerprint)),
        boxes=run.store.uri_of(layout.data_prefix("boxes", run.fingerprint)),
        nothing_to_do=ending.nothing_to_do,
        rows=sum(statuses.values()),
        scored=record.photos_scored,
        copied=record.photos_copied,
        vanished=record.photos_vanished,
        statuses=dict(statuses),
        skipped=dict(record.skipped),
        taken=dict(record.taken),
        taken_from=run.prepared.scoring.taken_from,
        units=len(work.plan.units) if work else 0,
        units_left=left,
        left=dict(work.open_units) if work else {},
        seconds=record.seconds,
        photos_per_second=record.photos_per_second,
        cost=cost,
        money=cost.money(prices),
        currency=prices.currency,
    )
