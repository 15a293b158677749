"""Score a few units on an engine's workers, and measure how long each takes."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from skinbatch.engines.pool import (
    Finished,
    PoolEvent,
    PoolMessage,
    UnitProgress,
    WorkerPool,
    WorkerReady,
)
from skinbatch.engines.presenter import Presenter
from skinbatch.errors import StoreError
from skinbatch.scoring.assignment import Assignment, UnitDone
from skinbatch.types import WorkUnit

_TICK_S = 0.2
# Number of problems with which a death of a worker ends the rehearsal.
_MOST_PROBLEMS = 3
# Seconds to wait for the other workers after the first one is warm.
_OTHERS_S = 60.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Hold one unit that was scored.

    photos: rows, failed ones included. failed: rows that are not ok. seconds: from handing the unit
    out to its end. resource: `cpu` or `gpu`.
    """

    photos: int
    failed: int
    seconds: float
    resource: str


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Hold what was measured.

    workers: that took part. start_s: seconds until all of them were ready. problems: why units
    could not be scored.
    """

    units: tuple[Measured, ...]
    workers: int
    start_s: float
    problems: tuple[str, ...]


class Rehearser:
    """Score units on the workers of a pool, once.

    Each worker scores `warm_up` first, which is not measured: the first photos of a process take
    longer. The measured units begin when every worker is warm, so that they run side by side as in
    a real run; workers that are still not there a minute after the first one are not waited for.
    """

    def __init__(
        self,
        pool: WorkerPool,
        units: Sequence[WorkUnit],
        warm_up: WorkUnit,
        stall_s: float,
        presenter: Presenter,
    ) -> None:
        """Prepare. stall_s: seconds without progress after which the rehearsal is given up."""
        self.pool, self.presenter = pool, presenter
        self.stall_s = stall_s
        self._count, self._waiting = len(units), deque(units)
        self._warm_up = warm_up
        self._resources: dict[int, str] = {}
        self._warm: set[int] = set()
        self._begun: dict[int, float] = {}
        self._given: dict[int, WorkUnit] = {}
        self._measured: list[Measured] = []
        self._problems: list[str] = []
        self._seen: dict[int, UnitProgress] = {}
        self._first_warm = math.inf
        self._further = 0.0

    def run(self) -> Rehearsal:
        """Score all units. Raises StoreError if none of them could be scored."""
        started = self._further = time.monotonic()
        start_s = 0.0
        while self._waiting or self._begun:
            for event in self.pool.wait(_TICK_S):
                self._further = time.monotonic()
                self._take(event)
                if isinstance(event, WorkerReady):
                    start_s = self._further - started
            if self._may_begin():
                self._hand_out()
            self._watch()

        if not any(unit.photos for unit in self._measured):
            reason = self._problems[0] if self._problems else "none of its photos exists"
            raise StoreError(f"the sample could not be scored: {reason}")
        return Rehearsal(tuple(self._measured), len(self._warm), start_s, tuple(self._problems))

    def _take(self, event: PoolEvent) -> None:
        if isinstance(event, WorkerReady):
            self._resources[event.worker] = event.resource
            self.pool.submit(event.worker, _assignment(self._warm_up))
        elif isinstance(event, Finished):
            self._finish(event)
        elif isinstance(event, PoolMessage):
            self.presenter.note(event.text)
        else:
            self._begun.pop(event.worker, None)
            unit = self._given.pop(event.worker, None)
            self._warm.discard(event.worker)
            self._resources.pop(event.worker, None)
            if event.machine_lost:  # or about to be taken away
                self._waiting.extend([unit] if unit is not None else [])
                return
            self._problems.append(f"a worker died: {event.reason}")
            if len(self._problems) >= _MOST_PROBLEMS:
                raise StoreError(f"the sample could not be scored: {self._problems[-1]}")

    def _finish(self, event: Finished) -> None:
        outcome = event.outcome
        if not isinstance(outcome, UnitDone):
            self._problems.append(outcome.message.strip().splitlines()[-1])
        if event.worker not in self._warm:
            self._warm.add(event.worker)
            self._first_warm = min(self._first_warm, self._further)
            return

        del self._given[event.worker]
        seconds = self._further - self._begun.pop(event.worker)
        if isinstance(outcome, UnitDone) and outcome.receipt is not None:
            photos = sum(outcome.receipt.statuses.values())
            failed = sum(outcome.failed.values())
            resource = self._resources[event.worker]
            self._measured.append(Measured(photos, failed, seconds, resource))

    def _may_begin(self) -> bool:
        if len(self._warm) == self.pool.size:
            return True
        return time.monotonic() - self._first_warm > _OTHERS_S

    def _hand_out(self) -> None:
        for worker in sorted(self._warm - self._begun.keys()):
            if self._waiting:
                self._begun[worker] = time.monotonic()
                unit = self._given[worker] = self._waiting.popleft()
                self.pool.submit(worker, _assignment(unit))
        done = self._count - len(self._waiting) - len(self._begun)
        self.presenter.phase(f"scoring a sample: {done} of {self._count} parts")

    def _watch(self) -> None:
        """Give up if workers have something to do and do nothing."""
        progress = dict(self.pool.progress())
        works = bool(self._begun) or len(self._resources) > len(self._warm)
        if progress != self._seen or not works:
            self._seen, self._further = progress, time.monotonic()
        if time.monotonic() - self._further > self.stall_s:
            raise StoreError(f"the sample made no progress for {self.stall_s:g} s")


def _assignment(unit: WorkUnit) -> Assignment:
    return Assignment(unit, unit.inputs_sha256)
