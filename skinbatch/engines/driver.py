"""Drive one run from source to snapshot: plan, hand out, commit, clean up.

It works the same way on every engine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import FrameType

from skinbatch import signals
from skinbatch.engines.assign import Assigner, EarlierReceipts
from skinbatch.engines.deaths import DeathRecord
from skinbatch.engines.drift import Drift
from skinbatch.engines.gone import Gone
from skinbatch.engines.planning import NothingSince, Planner
from skinbatch.engines.pool import Engine, Ready
from skinbatch.engines.presenter import Presenter
from skinbatch.engines.progress import Before, Totals
from skinbatch.engines.scheduler import Scheduler
from skinbatch.engines.setup import Prepared
from skinbatch.engines.watched import Watched
from skinbatch.errors import ClaimError, SkinbatchError, StoreError, UsageError
from skinbatch.runs import cleanup, destination, layout, plan, snapshot
from skinbatch.runs.claim import Claim
from skinbatch.runs.folds import Folds
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.plan import Plan
from skinbatch.runs.record import RunLog, RunRecord, next_id
from skinbatch.runs.report import RunReport
from skinbatch.runs.snapshot import Snapshot
from skinbatch.runs.stub import Stub
from skinbatch.runs.units import PlannedUnit, Units
from skinbatch.scoring.assignment import Assignment, UnitDone, UnitFailed
from skinbatch.storage.traffic import TRAFFIC
from skinbatch.types import Receipt, WorkUnit

# Most plans in one run: the first, and those made because photos changed while they were read.
MAX_ROUNDS = 3
# Number of open units that get a note of their own. An outage may leave thousands.
_MOST_NOTED = 5


class Interrupted(Exception):
    """Report that Ctrl-C or SIGTERM ended the run."""


class Driver:
    """Run `score` or `retry` for prepared settings. It also observes the scheduler."""

    def __init__(self, prepared: Prepared, presenter: Presenter, command: str) -> None:
        self.prepared = prepared
        self.store = prepared.store
        self.config = prepared.config
        self.presenter = presenter
        self.fingerprint = prepared.scoring.fingerprint
        run_id = next_id(self.store)
        record = RunRecord(
            run_id, command, self.config.engine.name, self.fingerprint, prepared.source_uri
        )
        self.log = RunLog(self.store, record)
        self.claim = Claim(self.store, run_id)
        self.planner = Planner(prepared, presenter, self.log, self._check_interrupted)
        self.ledger = Ledger(self.store, self.fingerprint)
        self.drift = Drift()
        self.totals: Totals | None = None
        self._folds = Folds(self.ledger, presenter.note)
        self._interrupted = threading.Event()
        self._scheduler: Scheduler | None = None
        self._deaths: DeathRecord
        self._left: dict[str, str] = {}
        self._current: Plan | None = None
        self._gone: Gone | None = None
        self._troubles: set[str] = set()
        self._earlier = EarlierReceipts(prepared, presenter.note)

    def run(self, engine: Engine, retry: bool = False) -> RunReport:
        """Run to the end. However the run ends, the claim is released and the record is written."""
        with signals.heard_by(self._stop), TRAFFIC.heard_by(self.troubled):
            return self._run_claimed(engine, retry)

    def _run_claimed(self, engine: Engine, retry: bool) -> RunReport:
        try:
            self.claim.take(
                on_wait=lambda who: self.presenter.phase(
                    f"the destination is claimed by {who}; watching it"
                ),
                check=self._check_interrupted,
            )
            self.claim.start(self.log.beat)
            report = self._run(engine, retry)
        except (Interrupted, KeyboardInterrupt):
            report = self._end(
                130,
                "interrupted; run the same command again to continue",
                self._current,
                "interrupted",
            )
        except BaseException as error:
            code, text = getattr(error, "exit_code", 1), str(error)
            self._quietly(lambda: self._close_record("failed", code, text))
            raise
        finally:
            self._quietly(self.claim.release)
        return report

    def _quietly(self, last_words: Callable[[], None]) -> None:
        """Do a last step of a run that may have failed, and turn its error into a note.

        An error here must not hide the error of the run itself.
        """
        try:
            last_words()
        except SkinbatchError as e:
            self.presenter.note(f"the end of the run could not be recorded: {e}")

    def _run(self, engine: Engine, retry: bool) -> RunReport:
        try:
            current = self.planner.of_retry() if retry else self.planner.of_score()
        except NothingSince:
            message = f"nothing to do: nothing was modified since {self.config.source.since}"
            return self._end(0, message, None, "done", nothing_to_do=True)

        # Read only now: the listing has just as many entries, and its memory is free again.
        self.presenter.phase("reading what is done")
        self.ledger = Ledger.load(self.store, self.fingerprint)
        self._folds = Folds(self.ledger, self.presenter.note)
        self._current = current
        self._check_interrupted()
        assigner = Assigner(self.store, self.ledger, current, self._earlier)
        left = assigner.left()
        failed = assigner.failed() if retry and not left else []
        if retry and left:
            raise UsageError(
                f"{self.store.uri}: {len(left)} units are not scored yet; run `skinbatch score` first, then retry"
            )
        assignments = assigner.to_retry(failed) if retry else assigner.to_score(left)
        todo = len(failed) if retry else len(left)
        with self.log.lock:
            self.log.record.units_total = len(current.units)
            self.log.record.photos_listed = current.photos
        if not todo:
            return self._finish(current, nothing_to_do=True)
        self.totals = self._totals(current, left, failed)
        if self.prepared.scoring.taken:
            self.presenter.phase("reading the earlier scoring")
            self._earlier.load()
            self._check_interrupted()
        self._gone = Gone(
            self.config.run.max_gone, current, snapshot.newest_that_counts(self.ledger) is None
        )
        self.log.write()
        current = self._score(engine, current, assignments, todo)
        if self._gone.too_many:
            self._folds.write()
            message = self._gone.message(self.prepared.source_uri, self.planner.locator)
            return self._end(4, message, current, "failed")
        if self._done(current):
            return self._finish(current)
        self._folds.write()
        if self._scheduler is not None and self._scheduler.stopped and not self._left:
            message = f"stopped: {self._scheduler.stopped}; run the same command again to continue"
            return self._end(6, message, current, "stopped")
        return self._end(4, self._left_message(current), current, "failed")

    def _totals(
        self, current: Plan, left: Units, failed: Sequence[tuple[PlannedUnit, Receipt]]
    ) -> Totals:
        """Return the totals before the first unit.

        Shards that were scored before count as many photos as they have rows.
        """
        photos, uncounted = current.photos, 0
        counts: dict[str, int] = {}
        for unit_id, inputs_sha256, kind, count in current.units.columns(
            "unit_id", "inputs_sha256", "kind", "count"
        ):
            if count is None:
                proof = self.ledger.proof(unit_id, inputs_sha256)
                uncounted += proof is None
                photos += sum(stub.rows for stub in proof or ())
            elif kind != "loose":
                counts[unit_id] = count

        again = {receipt.unit_id: receipt.inputs_count for _, receipt in failed}
        counts |= again
        units = len(current.units)
        units_done = units - (len(failed) or len(left))
        photos_done = photos - left.photos - sum(again.values())
        return Totals(
            self.log,
            self.config.run,
            Before(photos, units, photos_done, units_done, uncounted, counts),
        )

    def _score(
        self, engine: Engine, current: Plan, assignments: Iterator[Assignment], units: int
    ) -> Plan:
        assert self.totals is not None and self._gone is not None
        self._deaths = DeathRecord(self.store, self.fingerprint, self.log.record.run_id)
        self.presenter.phase("starting workers")
        pool = engine.start(replace(self.prepared.context, units=units))
        with self.log.lock:
            self.log.record.workers = pool.size
        try:
            for _ in range(MAX_ROUNDS):
                self._scheduler = Scheduler(
                    pool,
                    Watched(self, self.log),
                    self.config.engine.stall_timeout_s,
                    self.config.storage.max_attempts * self.config.storage.timeout_s,
                    self._deaths.of,
                    self.planner.count_members,
                    already_ready=self._scheduler.idle if self._scheduler else (),
                )
                self._scheduler.run(assignments)
                if self._scheduler.fatal is not None:
                    self._stop_on(self._scheduler.fatal)
                if not self.drift or self._gone.judge(
                    self.totals.rows, self.drift.lost_shards(self.planner.locator)
                ):
                    break
                current = self._current = self.planner.anew(current, self.drift)
                assigner = Assigner(self.store, self.ledger, current, self._earlier)
                assignments = assigner.to_score(assigner.left())
        finally:
            pool.close()
        return current

    def _stop_on(self, failure: UnitFailed) -> None:
        if failure.kind == "defect":
            raise RuntimeError(
                f"a bug in skinbatch stopped the run; everything committed is kept:\n{failure.message}"
            )
        raise UsageError(f"{failure.message}; everything committed is kept")

    def _done(self, current: Plan) -> bool:
        return not Assigner(self.store, self.ledger, current).left()

    def _left_message(self, current: Plan) -> str:
        left = len(Assigner(self.store, self.ledger, current).left())
        first = next(iter(self._left.values()), "photos kept changing while they were read")
        return f"{left} units could not be scored ({first}); run the same command to try them again"

    def _finish(self, current: Plan, nothing_to_do: bool = False) -> RunReport:
        """Write the snapshot, clean up and judge all rows. Every unit is done."""
        chosen = self._chosen(current)
        newest = snapshot.newest_that_counts(self.ledger)
        handed_out = not nothing_to_do
        recorded = None if newest is None else (newest.plan, list(newest.receipts))
        settled = nothing_to_do and recorded == (current.name, chosen)
        if not settled:
            current = plan.newest_alike(self.store, self.fingerprint, current)
        if newest is None or recorded != (current.name, chosen):
            self.presenter.phase("writing the snapshot")
            names = snapshot.names(self.store, self.fingerprint)
            number = layout.number_of(names[0])[0] + 1 if names else 1
            newest = snapshot.write(self.ledger, number, current.name, chosen)
            nothing_to_do = False
        self.presenter.phase("cleaning up")
        cleanup.clean_up(self.ledger, newest, fresh=not handed_out)
        if not settled:
            plan.newest_alike(self.store, self.fingerprint, current)
        return self._end(
            *self._verdict(newest, nothing_to_do), current, "done", newest, nothing_to_do
        )

    def _verdict(self, newest: Snapshot, nothing_to_do: bool) -> tuple[int, str]:
        rows = newest.rows
        if not rows:
            kinds = ", ".join(
                f"{n} {ending}" for ending, n in self.log.record.skipped.most_common(5)
            )
            found = "no photo was found" + (f" (skipped: {kinds})" if kinds else "")
            return 4, f"{found}; check the source, --include and --exclude"
        failed = sum(stub.failed for stub in newest.receipts)
        if rows and failed / rows > self.config.run.max_failures:
            share = self.config.run.max_failures
            return (
                3,
                f"done, but {failed} of {rows} photos failed, more than --max-failures {share:g} allows",
            )
        return 0, "nothing to do: every photo has been scored" if nothing_to_do else "done"

    def _chosen(self, current: Plan) -> list[Stub]:
        proofs = (self.ledger.proof(*inputs) for inputs in current.units.inputs())
        return [r for proof in proofs if proof is not None for r in proof]

    def _end(
        self,
        exit_code: int,
        message: str,
        current: Plan | None,
        state: str,
        newest: Snapshot | None = None,
        nothing_to_do: bool = False,
    ) -> RunReport:
        if exit_code == 130:
            self._quietly(self._folds.write)
        chosen = newest.receipts if newest else self._chosen(current) if current else ()
        left = (
            len(Assigner(self.store, self.ledger, current).left()) if current and not newest else 0
        )
        self._quietly(lambda: self._close_record(state, exit_code, message))
        record = self.log.record
        statuses: dict[str, int] = {}
        for stub in chosen:
            for status, count in stub.statuses:
                statuses[status] = statuses.get(status, 0) + count
        return RunReport(
            exit_code=exit_code,
            message=message,
            destination=self.store.uri,
            fingerprint=self.fingerprint,
            images=self.store.uri_of(layout.data_prefix("images", self.fingerprint)),
            boxes=self.store.uri_of(layout.data_prefix("boxes", self.fingerprint)),
            nothing_to_do=nothing_to_do,
            rows=sum(statuses.values()),
            scored=record.photos_scored,
            copied=record.photos_copied,
            vanished=record.photos_vanished,
            statuses=statuses,
            skipped=dict(record.skipped),
            taken=dict(record.taken),
            taken_from=self.prepared.scoring.taken_from,
            units=len(current.units) if current else 0,
            units_left=left,
            left=dict(self._left),
            seconds=record.seconds,
            photos_per_second=record.photos_per_second,
        )

    def _close_record(self, state: str, exit_code: int, message: str) -> None:
        if not self.claim.taken:  # another run is working, and its record must stay the newest
            return
        with self.log.lock:
            record = self.log.record
            record.state, record.exit_code, record.message = state, exit_code, message
            record.open_units = dict(self._left)
        if destination.read_destination(self.store) is not None:
            self.log.write()

    # The methods below observe the scheduler.

    def ready(self, event: Ready) -> None:
        machine = f"{event.host}: {event.device}"
        with self.log.lock:
            if machine not in self.log.record.machines:
                self.log.record.machines.append(machine)
        self.presenter.phase("scoring")

    def done(self, assignment: Assignment, outcome: UnitDone) -> None:
        assert self.totals is not None and self._gone is not None
        self.drift.note(outcome.changed, outcome.vanished)
        unit = assignment.unit
        self._gone.note(unit, outcome.vanished)
        self._left.pop(unit.unit_id, None)
        self.totals.add(unit, outcome)
        for text in outcome.notes:
            self._note_once(text, "; the stages are run")
        if outcome.receipt is not None:
            self._folds.add(self.ledger.add(outcome.receipt))

    def drifted(self, assignment: Assignment, outcome: UnitFailed) -> None:
        if not self.drift.note_failed(assignment.unit, outcome):
            self.failed(assignment.unit.unit_id, outcome.message)

    def failed(self, unit_id: str, message: str) -> None:
        self._left[unit_id] = message
        with self.log.lock:
            self.log.record.units_failed += 1
        if len(self._left) <= _MOST_NOTED:
            more = "; further ones are only counted" if len(self._left) == _MOST_NOTED else ""
            self.presenter.note(
                f"unit {unit_id} stays open: {message.strip().splitlines()[-1]}{more}"
            )

    def again(self, assignment: Assignment, reason: str, outcome: UnitFailed | None = None) -> None:
        if outcome is not None and outcome.kind == "store":
            self.troubled(reason.strip())

    def said(self, text: str) -> None:
        self.presenter.note(text)

    def troubled(self, text: str) -> None:
        """Show the first failure of each kind at once. Called from any thread.

        A run may try for minutes before it gives up.
        """
        self._note_once(text, "; trying again for a while")

    def _note_once(self, text: str, consequence: str) -> None:
        kind = text.rpartition(": ")[2]  # without the name of the object
        if kind not in self._troubles:
            self._troubles.add(kind)
            self.presenter.note(text + consequence)

    def died(self, assignment: Assignment, reason: str, timed_out: bool) -> None:
        unit = assignment.unit
        with self.log.lock:
            self.log.record.worker_deaths += 1
        self.presenter.note(f"a worker died on unit {unit.unit_id}: {reason}")
        if self.totals is not None:
            self.totals.died(reason)
        try:
            self._deaths.add(unit, reason, timed_out)
        except StoreError as e:  # only a later run would miss it
            self.presenter.note(f"the death of the worker could not be recorded: {e}")

    def halved(self, unit: WorkUnit) -> None:
        with self.log.lock:
            self.log.record.units_halved += 1
        if self.totals is not None:
            self.totals.halved(unit)

    def stop_reason(self) -> str | None:
        self._check_interrupted()
        if self._gone is not None and self._gone.already_too_many:
            return "most of the photos are gone"
        return self.totals.stop_reason() if self.totals else None

    def tick(self, photos_in_flight: int) -> None:
        self._check_interrupted()
        if self.totals is not None:
            self.presenter.progress(self.totals.tick(photos_in_flight))

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """End the run at the next tick after SIGINT or SIGTERM."""
        if self._interrupted.is_set():
            signals.interrupt(number, frame)  # a second Ctrl-C ends the run at once
        self._interrupted.set()

    def _check_interrupted(self) -> None:
        if self.claim.lost is not None:
            raise ClaimError(
                f"another run has taken over {self.store.uri}: {self.claim.lost}; this one stops"
            )
        if self._interrupted.is_set() or signals.interrupted():
            raise Interrupted
