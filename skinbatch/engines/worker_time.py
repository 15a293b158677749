"""Count for how long a run's workers exist, by what they compute on."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from skinbatch.engines.pool import WorkerReady


class WorkerTime:
    """Add up worker-seconds, from when each worker is ready.

    A worker that dies and is replaced keeps its place, so its seconds go on. Places for which no
    worker was ever ready cost nothing here, as they may still be waiting for a machine. Nor do
    those of workers that were released.

    clock: seconds from any origin.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._resources: dict[int, str] = {}
        self._workers: Counter[str] = Counter()
        self._seconds: dict[str, float] = defaultdict(float)
        self._counted_to = clock()

    def ready(self, event: WorkerReady) -> None:
        """Begin to count a worker, or count it as what it computes on now."""
        self._count()
        before = self._resources.get(event.worker)
        if before is not None:
            self._workers[before] -= 1
        self._resources[event.worker] = event.resource
        self._workers[event.resource] += 1

    def released(self, workers: Iterable[int]) -> None:
        """End counting workers until they are ready again."""
        self._count()
        for worker in workers:
            resource = self._resources.pop(worker, None)
            if resource is not None:
                self._workers[resource] -= 1

    def seconds(self) -> Mapping[str, float]:
        """Return resource (`cpu` or `gpu`) -> worker-seconds so far."""
        self._count()
        return {resource: round(value, 3) for resource, value in sorted(self._seconds.items())}

    def _count(self) -> None:
        """Add the seconds since the last call."""
        now = self._clock()
        for resource, workers in self._workers.items():
            self._seconds[resource] += workers * (now - self._counted_to)
        self._counted_to = now
