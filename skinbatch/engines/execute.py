"""Let workers score the units of a run, and plan again what changes meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, replace

from skinbatch.engines.deaths import DeathRecord
from skinbatch.engines.drift import Drift
from skinbatch.engines.event_log import log_event
from skinbatch.engines.events import Events
from skinbatch.engines.gone import Gone
from skinbatch.engines.pool import Engine
from skinbatch.engines.recorder import Recorder
from skinbatch.engines.run import Run
from skinbatch.engines.scheduler import Scheduler
from skinbatch.engines.totals import Totals
from skinbatch.engines.work import Todo, Work
from skinbatch.errors import UsageError
from skinbatch.runs import snapshot
from skinbatch.scoring.assignment import UnitFailed

# Most plans in one run: the first, and those made because photos changed while they were read.
MAX_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Executed:
    """Describe how far the workers got.

    stopped: why no more units were handed out, None if all were. gone: the photos that are gone.
    """

    stopped: str | None
    gone: Gone


def execute(run: Run, work: Work, todo: Todo, engine: Engine) -> Executed:
    """Hand out the units of `todo` and commit what the workers make of them."""
    settings, storage = run.prepared.config.run, run.prepared.config.storage
    totals = Totals(settings, work.before(todo), run.presenter.progress)
    recorder = Recorder(run.log)
    if run.prepared.scoring.taken:
        run.presenter.phase("reading the earlier scoring")
        work.earlier.load()
        run.interruption.check()

    events = Events()
    drift = Drift(events.publish)
    gone = Gone(settings.max_gone, work.plan, snapshot.newest_that_counts(work.ledger) is None)
    run.log.write()

    deaths = DeathRecord(run.store, run.fingerprint, run.id, run.presenter.note)
    # The last two may write to the store. By then everybody else has heard of the event.
    events.subscribe(
        log_event,
        recorder.hear,
        drift.hear,
        gone.hear,
        totals.hear,
        run.notes.hear,
        work.hear,
        deaths.hear,
    )

    def stop_reason() -> str | None:
        run.interruption.check()
        return gone.stop_reason() or totals.stop_reason()

    run.presenter.phase("starting workers")
    pool = engine.start(replace(run.prepared.context, units=todo.units))

    assignments, idle = todo.assignments, set[int]()
    try:
        for _ in range(MAX_ROUNDS):
            scheduler = Scheduler(
                pool,
                events.publish,
                run.prepared.config.engine.stall_timeout_s,
                storage.max_attempts * storage.timeout_s,
                deaths.of,
                run.planner.count_members,
                already_ready=idle,
            )
            scheduler.run(assignments, stop_reason)
            if scheduler.fatal is not None:
                raise _fatal_error(scheduler.fatal)

            stopped, idle = scheduler.stopped, scheduler.idle
            if not drift:
                break
            if gone.judge(totals.rows, drift.lost_shards(run.planner.locator)):
                break

            work.plan = run.planner.plan_again(work.plan, drift)
            assignments = work.assignments()
            pool.restore()
    finally:
        pool.close()
    return Executed(stopped, gone)


def _fatal_error(failure: UnitFailed) -> Exception:
    """Return the error for a failure that ends the run, because every unit would fail in this way."""
    if failure.kind == "defect":
        return RuntimeError(
            f"a bug in skinbatch stopped the run; everything committed is kept:\n{failure.message}"
        )
    return UsageError(f"{failure.message}; everything committed is kept")
