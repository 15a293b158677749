"""Send the units of a simulation through real Ray actors, which take no time to score them."""

from __future__ import annotations

import time
from dataclasses import replace

import ray

from jobs.simulate_workers import write_unit
from skinbatch.config import EngineSettings
from skinbatch.engines.pool import UnitProgress
from skinbatch.engines.ray_engine import RayEngine
from skinbatch.engines.ray_pool import RayPool
from skinbatch.scoring.assignment import Assignment, ScoringContext, UnitDone
from skinbatch.storage.locate import open_store


class FakeActor:
    """Commit each unit at once, into a real folder."""

    def __init__(self, context: ScoringContext) -> None:
        self._context = context
        self._store = open_store(context.destination, context.config.storage)

    def node(self) -> tuple[str, tuple[str, str]]:
        return ray.get_runtime_context().get_node_id(), ("CPU (simulated)", "simulated")

    def score(self, assignment: Assignment) -> UnitDone:
        return UnitDone(write_unit(self._store, self._context.fingerprint, assignment, 500, 0.0))

    def progress(self) -> UnitProgress:
        return UnitProgress(steps=int(time.monotonic()))


class FakeRayEngine(RayEngine):
    """Start Ray on this machine, with actors that share its cores."""

    def __init__(self, workers: int) -> None:
        super().__init__(EngineSettings(name="ray", device="cpu"))
        self._workers_wanted = workers
        self.pool: TimedPool | None = None

    def start(self, context: ScoringContext) -> RayPool:
        self.pool = TimedPool(
            replace(context, threads=1), self._workers_wanted, 0.1, 0, actor=FakeActor
        )
        return self.pool


class TimedPool(RayPool):
    """Note when the first unit was handed out, when the last one had ended, and both in
    processor seconds of the driver.
    """

    first = last = (0.0, 0.0)

    def submit(self, worker: int, assignment: Assignment) -> None:
        if self.first == (0.0, 0.0):
            self.first = _now()
        super().submit(worker, assignment)

    def close(self) -> None:
        self.last = _now()
        super().close()

    def seconds(self) -> tuple[float, float]:
        """Return seconds by the wall clock, and processor seconds of the driver."""
        return self.last[0] - self.first[0], self.last[1] - self.first[1]


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
