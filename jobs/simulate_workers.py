"""Run a pool of simulated workers on simulated time, some of which are preempted."""

from __future__ import annotations

import heapq
import math
import random
import secrets
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from skinbatch.engines.pool import Death, Finished, PoolEvent, UnitProgress, WorkerReady
from skinbatch.runs import layout, receipts
from skinbatch.scoring.assignment import Assignment, ScoringContext, UnitDone
from skinbatch.storage.store import Store
from skinbatch.types import DataFile, Receipt

# Seconds between two reports of a worker's progress.
_REPORT_S = 5.0
# Of the workers that are lost with a unit, one in four has written a table, and one in four its
# receipt too, which the driver then never hears of.
_WROTE_SOMETHING = 0.25
_HOUR_S = 3600.0
# Number of turns for which the processor's share is taken as constant.
_TURNS = 200


@dataclass(frozen=True, slots=True)
class Fleet:
    """Describe the simulated workers.

    photo_s: measured seconds per photo, one value for each measured unit. photos: of each unit.
    preempt: share of the workers that is lost in an hour. start_s: seconds until a new worker is
    ready. replace_s: seconds until a lost machine is replaced.
    """

    workers: int
    photo_s: Sequence[float]
    photos: int
    preempt: float
    start_s: float
    replace_s: float
    seed: int = 0


class Clock:
    """Tell simulated time, which goes on while the driver computes.

    Time stands still within one turn of the driver, and its processor time is added at the end of
    the turn. The time for which other programs have the processor does not count: a turn is timed
    by the wall clock, and multiplied by the share of the processor that this thread has had.
    """

    def __init__(self) -> None:
        self.now = 0.0
        # Processor seconds of the driver, and of the simulation itself.
        self.driver = self.simulation = 0.0
        self._share = 1.0
        self._turns = 0
        self._since = self._shared_since = time.perf_counter()
        self._processor = time.thread_time()

    def end_turn(self) -> None:
        """Add what the driver has taken, and count the simulation from here on."""
        seconds = self._passed()
        self.driver += seconds
        self.now += seconds

    def begin_turn(self, now: float) -> None:
        """Jump to a later time, and count the driver again."""
        self.simulation += self._passed()
        self.now = now
        self._turns += 1
        if self._turns % _TURNS == 0:
            self._measure_share()

    def _passed(self) -> float:
        """Return the processor seconds of this thread since the last call."""
        before, self._since = self._since, time.perf_counter()
        return (self._since - before) * self._share

    def _measure_share(self) -> None:
        """Measure the share of the processor. Asking for it takes longer than many turns."""
        processor, now = time.thread_time(), time.perf_counter()
        self._share = (processor - self._processor) / (now - self._shared_since)
        self._processor, self._shared_since = processor, now


@dataclass(slots=True)
class _Unit:
    assignment: Assignment
    begun: float
    seconds: float


class SimulatedPool:
    """Score units by waiting for as long as they take, and commit them as workers do.

    A worker writes two tables of a few bytes, then a real receipt. Everything but `wait`'s return
    is the simulation's own time.
    """

    def __init__(self, context: ScoringContext, store: Store, fleet: Fleet, clock: Clock) -> None:
        self.size = fleet.workers
        self.counts: Counter[str] = Counter()
        # Worker-seconds from ready to lost or to the end, and those with a unit.
        self.there_s = self.busy_s = 0.0
        self.first_idle: float | None = None
        self.ended = self.processor = 0.0
        self._fingerprint = context.fingerprint
        self._store, self._fleet, self._clock = store, fleet, clock
        self._random = random.Random(fleet.seed)
        self._due: list[tuple[float, int, str, int]] = []
        self._lives = Counter[int]()
        self._ready: dict[int, float] = {}
        self._units: dict[int, _Unit] = {}
        self._progress: dict[int, UnitProgress] = {}
        self._reported = 0.0
        for worker in range(fleet.workers):
            self._plan(self._random.uniform(0.5, 1.5) * fleet.start_s, "ready", worker)

    def _plan(self, at: float, kind: str, worker: int) -> None:
        heapq.heappush(self._due, (at, self._lives[worker], kind, worker))

    def submit(self, worker: int, assignment: Assignment) -> None:
        now = self._clock.now
        seconds = self._random.choice(self._fleet.photo_s) * self._fleet.photos
        self._units[worker] = _Unit(assignment, now, seconds)
        self._progress[worker] = UnitProgress()
        self._plan(now + seconds, "finished", worker)

    def wait(self, timeout_s: float) -> list[PoolEvent]:
        self._clock.end_turn()
        now = self._clock.now
        if self.first_idle is None and len(self._ready) > len(self._units) and self._units:
            self.first_idle = now
        until = now + timeout_s
        next_at = self._due[0][0] if self._due else until
        until = max(now, min(until, next_at))

        events: list[PoolEvent] = []
        while self._due and self._due[0][0] <= until:
            at, life, kind, worker = heapq.heappop(self._due)
            if life == self._lives[worker]:
                events.append(self._happens(at, kind, worker))
        self._clock.begin_turn(until)
        return events

    def _happens(self, at: float, kind: str, worker: int) -> PoolEvent:
        if kind == "ready":
            self._ready[worker] = at
            self._plan(at + self._life(), "lost", worker)
            return WorkerReady(worker, "CPU (simulated)", f"simulated-{worker}")
        if kind == "finished":
            unit = self._units.pop(worker)
            self._progress.pop(worker)
            self.busy_s += at - unit.begun
            return Finished(worker, UnitDone(self._commit(unit)))

        self._lose(at, worker)
        return Death(worker, "the node has died: preempted", machine_lost=True)

    def _life(self) -> float:
        """Return the seconds until a worker that is ready now is preempted."""
        if self._fleet.preempt <= 0:
            return math.inf
        return self._random.expovariate(-math.log1p(-self._fleet.preempt) / _HOUR_S)

    def _lose(self, at: float, worker: int) -> None:
        self.counts["lost"] += 1
        unit = self._units.pop(worker, None)
        if unit is not None:
            self.busy_s += at - unit.begun
            self.counts["lost with a unit"] += 1
            chance = self._random.random()
            if chance < _WROTE_SOMETHING:
                self.counts["committed, but not heard of"] += 1
                self._commit(unit)
            elif chance < 2 * _WROTE_SOMETHING:
                write_table(self._store, self._fingerprint, unit.assignment, "images", "0" * 12)
        self._progress.pop(worker, None)
        self.there_s += at - self._ready.pop(worker, at)
        self._lives[worker] += 1
        self._plan(at + self._fleet.replace_s, "ready", worker)

    def _commit(self, unit: _Unit) -> Receipt:
        photos = self._fleet.photos
        return write_unit(self._store, self._fingerprint, unit.assignment, photos, unit.seconds)

    def progress(self) -> Mapping[int, UnitProgress]:
        now = self._clock.now
        if now - self._reported >= _REPORT_S:
            self._reported = now
            for worker, unit in self._units.items():
                done = int(self._fleet.photos * (now - unit.begun) / unit.seconds)
                self._progress[worker] = UnitProgress(done, steps=int(now))
        return self._progress

    def replace(self, worker: int, reason: str) -> None:
        self._lose(self._clock.now, worker)

    def release(self, kept: Collection[int]) -> None:
        """End the workers that no unit is left for."""
        now = self._clock.now
        if self.first_idle is None and self._ready.keys() - kept:
            self.first_idle = now
        for worker in range(self.size):
            if worker not in kept:
                self.there_s += now - self._ready.pop(worker, now)
                self._lives[worker] += 1  # nothing that is planned for it happens

    def restore(self) -> None:
        """Do nothing: the photos of a simulation do not change."""

    def close(self) -> None:
        """Count the seconds of the workers that are still there."""
        self._clock.end_turn()
        self.ended = self._clock.now
        self.there_s += sum(self.ended - since for since in self._ready.values())
        self._ready.clear()
        self.processor = time.process_time()


def write_unit(
    store: Store, fingerprint: str, assignment: Assignment, photos: int, seconds: float
) -> Receipt:
    """Write two tables without content, then the receipt, as scoring.unit does."""
    attempt = layout.fresh()
    files = tuple(
        write_table(store, fingerprint, assignment, kind, attempt) for kind in ("images", "boxes")
    )
    receipt = Receipt(
        unit_id=assignment.unit.unit_id,
        generation=assignment.generation,
        attempt=attempt,
        inputs_sha256=assignment.whole_sha256,
        whole_sha256=assignment.whole_sha256,
        inputs_count=photos,
        start=assignment.unit.start,
        stop=assignment.unit.stop,
        files=files,
        statuses={"ok": photos - 1, "corrupt": 1},
        copied=0,
        timings={"fetch": 1.0, "decode": 9.0, "unit": round(seconds, 4)},
        host="simulated",
        written_at="2026-01-01T00:00:00+00:00",
        shard_size=assignment.unit.shard.size if assignment.unit.shard else None,
    )
    store.put(receipts.key_of(fingerprint, receipt), receipts.to_json(receipt))
    return receipt


def write_table(
    store: Store, fingerprint: str, assignment: Assignment, kind: str, attempt: str
) -> DataFile:
    """Write an empty file, and describe it like a real one, with a hash that does not compress."""
    path = layout.data_key(kind, fingerprint, assignment.unit.unit_id, attempt)
    store.put(path, b"")
    return DataFile(kind, path, secrets.token_hex(32), secrets.randbelow(10**6), 500)
