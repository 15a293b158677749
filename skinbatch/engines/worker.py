"""What a worker process does, on every engine: build the models once, then score one unit after another."""

from __future__ import annotations

import os
import socket
import sys

from skinbatch.engines.pool import Progress
from skinbatch.logs import write_json, writes_json
from skinbatch.scoring.assignment import Assignment, Outcome, ScoringContext
from skinbatch.storage.traffic import TRAFFIC

_ALLOCATOR = {"MALLOC_ARENA_MAX": "1"}
"""For glibc, which reads it when a process starts. By itself it keeps a heap for every thread; the models' intermediate results,
of another size for every face, leave holes in all of them."""


def environment(threads: int) -> dict[str, str]:
    """What a worker's process has to be started with; what the caller has set for the allocator wins.

    threads: that its models compute with.
    """
    return {name: os.environ.get(name, value) for name, value in _ALLOCATOR.items()} | {"OMP_NUM_THREADS": str(threads)}


class Worker:
    """Lives in a worker process. `score` blocks; `progress` may be asked meanwhile from another thread."""

    def __init__(self, context: ScoringContext) -> None:
        if context.config.run.log_format == "json" and not writes_json():
            write_json(sys.stderr)
        os.environ.setdefault("OMP_NUM_THREADS", str(context.threads))
        from skinbatch.scoring.unit import UnitScorer  # torch and the models, only where they run

        self._scorer = UnitScorer(context)

    def describe(self) -> tuple[str, str]:
        """(device, host)."""
        return self._scorer.device, socket.gethostname()

    def score(self, assignment: Assignment) -> Outcome:
        return self._scorer.score(assignment)

    def progress(self) -> Progress:
        return Progress(self._scorer.photos_further, self._scorer.waits_on_store, self._scorer.steps, TRAFFIC.trouble)
