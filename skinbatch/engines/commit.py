"""Finish a run whose units are all done: write the snapshot and clean up."""

from __future__ import annotations

from skinbatch.engines.ending import Ending
from skinbatch.engines.run import Run
from skinbatch.engines.work import Todo, Work
from skinbatch.runs import cleanup, layout, plan, snapshot
from skinbatch.runs.snapshot import Snapshot


def commit(run: Run, work: Work, handed_out: bool) -> Ending:
    """Write a snapshot if there is something new, and delete what it does not name.

    handed_out: this run has handed out units.
    """
    chosen = work.done()
    newest = snapshot.newest_that_counts(work.ledger)
    recorded = None if newest is None else (newest.plan, newest.receipts)

    # Another driver may have planned the same source at the same time. All use the newest plan.
    current = work.plan
    settled = not handed_out and recorded == (current.name, chosen)
    if not settled:
        current = plan.newest_alike(run.store, run.fingerprint, current)

    nothing_to_do = not handed_out
    if newest is None or recorded != (current.name, chosen):
        run.presenter.phase("writing the snapshot")
        names = snapshot.names(run.store, run.fingerprint)
        number = layout.number_of(names[0])[0] + 1 if names else 1
        newest = snapshot.write(work.ledger, number, current.name, chosen)
        nothing_to_do = False

    run.presenter.phase("cleaning up")
    cleanup.clean_up(work.ledger, newest, fresh=not handed_out)
    if not settled:
        # Raises if another driver has planned something else meanwhile.
        plan.newest_alike(run.store, run.fingerprint, current)

    exit_code, message = _judged(run, newest, work.todo if nothing_to_do else None)
    return Ending("done", exit_code, message, newest, nothing_to_do)


def _judged(run: Run, newest: Snapshot, idle: Todo | None) -> tuple[int, str]:
    """Return the exit code and the message for the rows of the snapshot.

    idle: what was there to do, if that was nothing.
    """
    rows = newest.rows
    if not rows:
        kinds = ", ".join(
            f"{count} {ending}" for ending, count in run.log.record.skipped.most_common(5)
        )
        skipped = f" (skipped: {kinds})" if kinds else ""
        return 4, f"no photo was found{skipped}; check the source, --include and --exclude"

    failed = sum(stub.failed for stub in newest.receipts)
    most = run.prepared.config.run.max_failures
    if failed / rows > most:
        done = idle.nothing if idle is not None and idle.chosen is not None else "done"
        return (
            3,
            f"{done}, but {failed} of {rows} photos failed, more than --max-failures {most:g} allows",
        )
    return 0, "done" if idle is None else idle.nothing
