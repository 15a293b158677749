"""Measure where the time of a worker goes."""

from __future__ import annotations

import threading


class Seconds:
    """Sum the seconds that each part of the work took, over the threads that did it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[str, float] = {}

    def add(self, part: str, seconds: float) -> None:
        with self._lock:
            self._of[part] = self._of.get(part, 0.0) + seconds

    def all(self) -> dict[str, float]:
        with self._lock:
            return dict(self._of)

    def clear(self) -> None:
        with self._lock:
            self._of.clear()
