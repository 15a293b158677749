"""Decide which worker scores which unit, and handle the death of a worker.

A unit whose worker died is tried again, then halved, until a single photo can be blamed.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from skinbatch.engines.events import (
    StoreTrouble,
    Subscriber,
    Tick,
    UnitCommitted,
    UnitDrifted,
    UnitHalved,
    UnitOpen,
    UnitRetried,
    WorkerDied,
    WorkersReleased,
)
from skinbatch.engines.member_count import MemberCount
from skinbatch.engines.next_step import (
    Count,
    Deaths,
    GiveUp,
    Halve,
    Retry,
    Verdict,
    after_death,
    after_lost_machine,
    after_store_failure,
    verdict,
)
from skinbatch.engines.pool import (
    Death,
    Finished,
    PoolEvent,
    PoolMessage,
    UnitProgress,
    WorkerPool,
    WorkerReady,
)
from skinbatch.errors import StoreError, memory_is_full
from skinbatch.scoring.assignment import Assignment, UnitDone, UnitFailed
from skinbatch.types import ShardRef, WorkUnit

STARTS_WITHOUT_READY = 3
_NO_PROGRESS = UnitProgress()
_TICK_S = 0.2
# Shortest time between two looks at all workers while units end, in seconds for each worker.
_LOOK_S = 0.001
# Shortest wait for the next member, in seconds, while the members of a shard are counted.
_COUNTED_S = 60.0
# If the scheduler was delayed for longer than this, the extra time is not counted against any
# worker.
_BLIND_S = 5.0


class WorkersFailed(StoreError):
    """Report that workers die before they are ready, because the models cannot be built there."""

    exit_code = 4


@dataclass(slots=True)
class _Busy:
    assignment: Assignment
    progress: UnitProgress
    since: float


class Scheduler:
    """Run units on a pool until none is left or there is a reason to stop.

    Args:
        publish: called with each event, on the thread that calls `run`.
        stall_timeout_s: seconds without progress after which a unit is blamed.
        store_timeout_s: extra seconds for a worker that waits for a store. The store is then
            blamed.
        deaths: returns the recorded deaths of a unit with the same inputs.
        count_members: returns the number of photos in a shard. It runs in a thread and calls back
            after each member.
        already_ready: workers of the pool that wait for a unit.
    """

    def __init__(
        self,
        pool: WorkerPool,
        publish: Subscriber,
        stall_timeout_s: float,
        store_timeout_s: float,
        deaths: Callable[[WorkUnit], Deaths],
        count_members: Callable[[ShardRef, Callable[[], None]], int],
        already_ready: Iterable[int] = (),
    ) -> None:
        self.pool = pool
        self.publish = publish
        self.stall_timeout_s = stall_timeout_s
        self.store_timeout_s = store_timeout_s
        self.recorded_deaths = deaths
        self.count_members = count_members
        self._again: deque[Assignment] = deque()
        self._later: list[tuple[float, Assignment]] = []
        self.idle: set[int] = set(already_ready)
        self._busy: dict[int, _Busy] = {}
        self._deaths: dict[str, Deaths] = {}
        self._counts: dict[str, MemberCount] = {}
        self._members: dict[ShardRef, int] = {}
        self._lost_machines: Counter[str] = Counter()
        self._store_tries: dict[str, int] = {}
        self._starts = 0
        self._looked = time.monotonic()
        self._watched = -math.inf
        self.stopped: str | None = None
        self.fatal: UnitFailed | None = None

    def run(
        self,
        assignments: Iterator[Assignment],
        stop_reason: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Hand out `assignments`, retries first. Returns when nothing is in flight.

        stop_reason: called a few times a second. It returns why no more units should be handed out,
        or None; an exception from it ends the run at once.
        """
        try:
            self._run(assignments, stop_reason)
        finally:
            for count in self._counts.values():
                count.awaited = False

    def _run(
        self, assignments: Iterator[Assignment], stop_reason: Callable[[], str | None]
    ) -> None:
        exhausted = False
        while True:
            reason = stop_reason()
            self.stopped = self.stopped or reason
            self._wake()

            while self.idle and not self.stopped and self.fatal is None:
                assignment = self._again.popleft() if self._again else next(assignments, None)
                if assignment is None:
                    exhausted = True
                    break
                self._hand_out(assignment)

            no_more = exhausted and not self._again and not self._later and not self._counts
            if no_more or self.stopped or self.fatal is not None:
                if not self._busy:
                    self.publish(Tick(0))  # the last commits may be newer than the last look
                    return
                self._release_idle()

            events = self.pool.wait(_TICK_S)
            for event in events:
                self._take(event)
            if not events or self._watch_is_due():
                self._watch()

    def _release_idle(self) -> None:
        """End the workers that no unit is left for, also those that wait for a place.

        Their machines are free for others, or for the autoscaler to take away. If a unit in flight
        has to be halved later, its worker scores one half after the other.
        """
        self.pool.release(self._busy.keys())
        if self.idle:
            self.publish(WorkersReleased(frozenset(self.idle)))
            self.idle.clear()

    def _wake(self) -> None:
        """Queue the units whose pause is over."""
        now = self._forgiving_now()
        self._again.extend(assignment for due, assignment in self._later if due <= now)
        self._later = [(due, assignment) for due, assignment in self._later if due > now]
        for unit_id, count in list(self._counts.items()):
            longest = max(_COUNTED_S, self.stall_timeout_s + self.store_timeout_s)
            if count.result is not None or now - count.further > longest:
                del self._counts[unit_id]
                count.awaited = False
                self._counted(count)

    def _hand_out(self, assignment: Assignment) -> None:
        unit = assignment.unit
        if assignment.verdict is None and self._died(unit).count:
            step = self._after_death(unit)
            if not isinstance(step, Retry):
                self._take_step(assignment, step)
                return
        worker = min(self.idle)
        self.idle.remove(worker)
        self._busy[worker] = _Busy(assignment, UnitProgress(), time.monotonic())
        self.pool.submit(worker, assignment)

    def _take(self, event: PoolEvent) -> None:
        if isinstance(event, WorkerReady):
            self._starts = 0
            self.idle.add(event.worker)
            self.publish(event)
        elif isinstance(event, Finished):
            busy = self._busy.pop(event.worker, None)
            self.idle.add(event.worker)
            if busy is not None:
                self._finish(busy.assignment, event)
        elif isinstance(event, PoolMessage):
            self.publish(event)
        else:
            self._bury(event)

    def _finish(self, assignment: Assignment, event: Finished) -> None:
        outcome = event.outcome
        unit_id = assignment.unit.unit_id
        if isinstance(outcome, UnitDone):
            self.publish(UnitCommitted(assignment, outcome))
        elif outcome.kind == "drift":
            self.publish(UnitDrifted(assignment, outcome))
        elif outcome.kind == "store":
            self._retry_later(assignment, outcome.message, outcome)
        elif outcome.kind == "memory":
            reason = f"memory ran out: {outcome.message}"
            self._blame(assignment, reason, timed_out=False, outcome=outcome)
        else:
            self.fatal = self.fatal or outcome
            self.publish(UnitOpen(unit_id, outcome.message, outcome))

    def _retry_later(
        self, assignment: Assignment, message: str, outcome: UnitFailed | None = None
    ) -> None:
        """Try a unit again after its store has failed, or leave it open.

        outcome: of the attempt; None if its worker was replaced.
        """
        unit_id = assignment.unit.unit_id
        tries = self._store_tries[unit_id] = self._store_tries.get(unit_id, 0) + 1
        step = after_store_failure(tries, message)
        if isinstance(step, GiveUp):
            self.publish(UnitOpen(unit_id, step.message, outcome))
            return
        self.publish(UnitRetried(assignment, message, outcome))
        self._later.append((time.monotonic() + step.pause * self.store_timeout_s, assignment))

    def _bury(self, death: Death) -> None:
        """Decide what becomes of the unit of a dead worker, if it had one."""
        was_ready = death.worker in self.idle
        self.idle.discard(death.worker)
        busy = self._busy.pop(death.worker, None)
        if busy is None and was_ready:
            return  # its node is gone or is being drained
        if busy is None:
            self._starts += 1
            if self._starts > STARTS_WITHOUT_READY * self.pool.size:
                raise WorkersFailed(
                    f"workers die before they are ready: {death.reason}{_way_out(death.reason)}"
                )
            return
        if death.machine_lost:
            self._lost(busy.assignment, death.reason)
        else:
            self._blame(busy.assignment, death.reason, timed_out=False)

    def _lost(self, assignment: Assignment, reason: str) -> None:
        """Try a unit again whose machine was lost, or leave it open."""
        unit_id = assignment.unit.unit_id
        self._lost_machines[unit_id] += 1
        step = after_lost_machine(self._lost_machines[unit_id], reason)
        if isinstance(step, GiveUp):
            self.publish(UnitOpen(unit_id, step.message))
            return
        self.publish(UnitRetried(assignment, reason))
        self._again.append(assignment)

    def _watch_is_due(self) -> bool:
        """Return whether all workers should be looked at although events keep coming.

        With many workers, a look after every event would take most of the driver's time.
        """
        return time.monotonic() - self._watched >= max(_TICK_S, _LOOK_S * self.pool.size)

    def _watch(self) -> None:
        """Replace workers that make no progress."""
        progress = self.pool.progress()
        now = self._watched = self._forgiving_now()
        for worker, busy in list(self._busy.items()):
            seen = progress.get(worker, _NO_PROGRESS)
            if seen.trouble:
                self.publish(StoreTrouble(seen.trouble))
            if seen != busy.progress:
                busy.progress, busy.since = seen, now
                continue
            limit = self.stall_timeout_s + (self.store_timeout_s if seen.on_store else 0)
            if now - busy.since > limit:
                reason = f"no photo made progress for {limit:g} s"
                del self._busy[worker]
                self.pool.replace(worker, reason)
                if seen.on_store:
                    self._retry_later(busy.assignment, f"the store did not answer: {reason}")
                else:
                    self._blame(busy.assignment, reason, timed_out=True)

        photos = sum(progress[w].photos for w in self._busy if w in progress)
        self.publish(Tick(photos))

    def _forgiving_now(self) -> float:
        """Return the time. A delay of this thread is not counted against any worker."""
        now = time.monotonic()
        blind, self._looked = now - self._looked - _BLIND_S, now
        if blind > 0:
            for busy in self._busy.values():
                busy.since = min(now, busy.since + blind)
            for count in self._counts.values():
                count.further = min(now, count.further + blind)
        return now

    def _blame(
        self,
        assignment: Assignment,
        reason: str,
        timed_out: bool,
        outcome: UnitFailed | None = None,
    ) -> None:
        unit = assignment.unit
        if assignment.verdict is not None:
            if assignment.unread or unit.shard is None:
                message = f"a worker died while writing one photo's row: {reason}"
                self.publish(UnitOpen(unit.unit_id, message, outcome))
            else:  # the reader dies before it gets to the member's name
                self.publish(UnitRetried(assignment, reason, outcome))
                self._again.append(replace(assignment, unread=True))
            return
        self._deaths[unit.unit_id] = Deaths(self._died(unit).count + 1, reason, timed_out)
        self.publish(WorkerDied(unit, reason, timed_out, outcome))
        self._take_step(assignment, self._after_death(unit))

    def _after_death(self, unit: WorkUnit) -> Retry | Count | Halve | Verdict:
        return after_death(self._died(unit), self._members_of(unit))

    def _members_of(self, unit: WorkUnit) -> int | None:
        """Return the number of photos in a unit, or None if its shard was not counted yet."""
        if unit.shard is None:
            return len(unit.images)
        stop = unit.stop if unit.stop is not None else self._members.get(unit.shard)
        return None if stop is None else stop - unit.start

    def _take_step(self, assignment: Assignment, step: Retry | Count | Halve | Verdict) -> None:
        """Queue what is to be done with a unit of which workers have died."""
        unit = assignment.unit
        if isinstance(step, Retry):
            self.publish(UnitRetried(assignment, self._died(unit).reason))
            self._again.append(assignment)
        elif isinstance(step, Verdict):
            self._again.append(replace(assignment, verdict=(step.status, step.error)))
        elif isinstance(step, Halve):
            halves = unit.halves(None if unit.shard is None else self._members.get(unit.shard))
            # The earlier scoring's tables may be what the workers died of.
            self._again.extend(replace(assignment, unit=half, earlier=()) for half in halves)
            self.publish(UnitHalved(unit))
        else:
            assert unit.shard is not None, "the photos of a loose unit are known"
            count = MemberCount(assignment, lambda: time.monotonic())
            count.begin(unit.shard, self.count_members)
            self._counts[unit.unit_id] = count

    def _counted(self, count: MemberCount) -> None:
        assignment, unit = count.assignment, count.assignment.unit
        if isinstance(count.result, Exception):
            error = count.result
            if not isinstance(error, StoreError | OSError) and not memory_is_full(error):
                raise error
            self._retry_later(assignment, str(error) or type(error).__name__)
        elif count.result is None:  # the reader hangs on what killed the workers
            blamed = verdict(self._died(unit))
            self._again.append(
                replace(assignment, verdict=(blamed.status, blamed.error), unread=True)
            )
        else:
            assert unit.shard is not None
            self._members[unit.shard] = count.result
            self._take_step(assignment, self._after_death(unit))

    def _died(self, unit: WorkUnit) -> Deaths:
        return self._deaths.get(unit.unit_id) or self.recorded_deaths(unit)


def _way_out(reason: str) -> str:
    """Return advice if the reason, from Ray or the system, looks like a lack of memory."""
    if not any(word in reason for word in ("memory", "OOM", "SIGKILL")):
        return ""
    return "; if memory ran out, set cpus_per_worker higher or workers lower in [engine]"
