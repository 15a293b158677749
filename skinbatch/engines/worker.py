"""Do the work of a worker, on every engine: build the models once, then score unit after unit."""

from __future__ import annotations

import os
import socket
import sys

from skinbatch.engines.pool import UnitProgress
from skinbatch.logs import write_json, writes_json
from skinbatch.scoring.assignment import Assignment, Outcome, ScoringContext
from skinbatch.storage.traffic import TRAFFIC

# Read by glibc when a process starts. By default it keeps a heap for every thread. The models'
# intermediate results have another size for every face and leave holes in all of these heaps.
_ALLOCATOR = {"MALLOC_ARENA_MAX": "1"}


def environment(threads: int) -> dict[str, str]:
    """Return the environment that a worker's process must be started with.

    Allocator settings that the user has made take precedence. threads: for the models' computation.
    """
    return {name: os.environ.get(name, value) for name, value in _ALLOCATOR.items()} | {
        "OMP_NUM_THREADS": str(threads)
    }


class Worker:
    """Score units in a worker process.

    `score` blocks; another thread may call `progress` meanwhile.
    """

    def __init__(self, context: ScoringContext) -> None:
        if context.config.run.log_format == "json" and not writes_json():
            write_json(sys.stderr)
        os.environ.setdefault("OMP_NUM_THREADS", str(context.threads))
        from skinbatch.scoring.unit_scorer import UnitScorer  # imports torch, so only here

        self._scorer = UnitScorer(context)

    def describe(self) -> tuple[str, str]:
        """Return (device, host)."""
        return self._scorer.device, socket.gethostname()

    def score(self, assignment: Assignment) -> Outcome:
        return self._scorer.score(assignment)

    def progress(self) -> UnitProgress:
        return UnitProgress(
            self._scorer.photos_further,
            self._scorer.waits_on_store,
            self._scorer.steps,
            TRAFFIC.trouble,
        )
