"""Drive one run from source to snapshot: plan, execute, commit, report.

It works the same way on every engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from skinbatch import signals
from skinbatch.engines.commit import commit
from skinbatch.engines.ending import Ending, report
from skinbatch.engines.execute import execute
from skinbatch.engines.interruption import Interrupted
from skinbatch.engines.planning import NothingSince
from skinbatch.engines.pool import Engine
from skinbatch.engines.run import Run
from skinbatch.engines.work import Work
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.plan import Plan
from skinbatch.runs.run_report import RunReport
from skinbatch.storage.traffic import TRAFFIC

if TYPE_CHECKING:
    from skinbatch.engines.chosen_rows import RowRequest

_INTERRUPTED = "interrupted; run the same command again to continue"


def drive(
    run: Run, engine: Engine, retrying: bool = False, request: RowRequest | None = None
) -> RunReport:
    """Do the run. However it ends, its claim is released and its record is written.

    Args:
        run: a new run.
        engine: where the units are scored.
        retrying: score the failed photos again, and list nothing.
        request: for a retry, the rows to score again instead of those that failed.
    """
    with signals.heard_by(run.interruption.hear), TRAFFIC.heard_by(run.notes.store_trouble):
        try:
            run.take_claim()
            return report(run, _plan_execute_commit(run, engine, retrying, request))
        except (Interrupted, KeyboardInterrupt):
            if run.work is not None:
                run.quietly(run.work.folds.write)
            return report(run, Ending("interrupted", 130, _INTERRUPTED))
        except BaseException as error:
            exit_code, message = getattr(error, "exit_code", 1), str(error)
            run.quietly(lambda: run.close_record("failed", exit_code, message))
            raise
        finally:
            run.quietly(run.claim.release)


def _plan_execute_commit(
    run: Run, engine: Engine, retrying: bool, request: RowRequest | None
) -> Ending:
    """Take the steps of a run, and return how it ends."""
    try:
        plan = run.planner.newest_plan() if retrying else run.planner.plan_source()
    except NothingSince:
        since = run.prepared.config.source.since
        message = f"nothing to do: nothing was modified since {since}"
        return Ending("done", 0, message, nothing_to_do=True)

    work = _read_what_is_done(run, plan)
    if request is not None:
        run.presenter.phase("choosing rows")
    todo = work.begin_retry(request) if retrying else work.begin_score()
    _record_what_there_is(run, work)
    if not todo.units:
        return commit(run, work, handed_out=False)

    executed = execute(run, work, todo, engine)
    if executed.gone.too_many:
        work.folds.write()
        message = executed.gone.message(run.prepared.source_uri, run.planner.locator)
        return Ending("failed", 4, message)

    left = work.units_left()
    if not left:
        return commit(run, work, handed_out=True)

    work.folds.write()
    if executed.stopped and not work.open_units:
        message = f"stopped: {executed.stopped}; run the same command again to continue"
        return Ending("stopped", 6, message)
    reason = next(iter(work.open_units.values()), "photos kept changing while they were read")
    message = f"{left} units could not be scored ({reason}); run the same command to try them again"
    return Ending("failed", 4, message)


def _read_what_is_done(run: Run, plan: Plan) -> Work:
    """Read which units are done.

    This comes after the plan, because the listing, which takes as much memory, has been dropped by
    then.
    """
    run.presenter.phase("reading what is done")
    # Arrow keeps what it needed to read the plan, more than the plan itself.
    pa.default_memory_pool().release_unused()
    ledger = Ledger.load(run.store, run.fingerprint)
    run.work = Work(run.prepared, plan, ledger, run.presenter.note)
    run.interruption.check()
    return run.work


def _record_what_there_is(run: Run, work: Work) -> None:
    """Put the size of the plan into the record."""
    with run.log.lock:
        run.log.record.units_total = len(work.plan.units)
        run.log.record.photos_listed = work.plan.photos
