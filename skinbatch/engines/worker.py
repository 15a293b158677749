"""What a worker process does, on every engine: build the models once, then score one unit after another."""

from __future__ import annotations

import os
import socket
import sys

from skinbatch.engines.pool import Progress
from skinbatch.logs import write_json, writes_json
from skinbatch.scoring.assignment import Assignment, Outcome, ScoringContext


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
        return Progress(self._scorer.photos_further, self._scorer.waits_on_store, self._scorer.steps)
