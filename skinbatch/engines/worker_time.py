"""Count for how long a run's workers exist, by what they compute on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from skinbatch.engines.pool import WorkerReady


class WorkerTime:
    """Add up worker-seconds, from when each worker is ready.

    A worker that dies and is replaced keeps its place, so its seconds go on. Places for which no
    worker was ever ready cost nothing here, as they may still be waiting for a machine.

    clock: seconds from any origin.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[int, tuple[float, str]] = {}
        self._before: dict[str, float] = {}

    def ready(self, event: WorkerReady) -> None:
        """Begin to count a worker, or count it as what it computes on now."""
        now = self._clock()
        since, resource = self._since.get(event.worker, (now, event.resource))
        if resource != event.resource:
            self._before[resource] = self._before.get(resource, 0.0) + now - since
            since = now
        self._since[event.worker] = since, event.resource

    def seconds(self) -> Mapping[str, float]:
        """Return resource (`cpu` or `gpu`) -> worker-seconds so far."""
        now = self._clock()
        seconds = dict(self._before)
        for since, resource in self._since.values():
            seconds[resource] = seconds.get(resource, 0.0) + now - since
        return {resource: round(value, 3) for resource, value in sorted(seconds.items())}
