"""Notice that a run must end at once: by a signal, or because another run took its claim."""

from __future__ import annotations

import threading
from types import FrameType

from skinbatch import signals
from skinbatch.errors import ClaimError
from skinbatch.runs.claim import Claim


class Interrupted(Exception):
    """Report that Ctrl-C or SIGTERM ended the run."""


class Interruption:
    """Remember the first signal until the run checks for it."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._interrupted = threading.Event()

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGINT and SIGTERM: end the run at its next check. A second one ends it at once."""
        if self._interrupted.is_set():
            signals.interrupt(number, frame)
        self._interrupted.set()

    def check(self) -> None:
        """Raise Interrupted after a signal, and ClaimError if the claim is lost."""
        if self._claim.lost is not None:
            raise ClaimError(
                f"another run has taken over {self._claim.store.uri}: {self._claim.lost}; this one stops"
            )
        if self._interrupted.is_set() or signals.interrupted():
            raise Interrupted
