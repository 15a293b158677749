"""Count the members of a shard in a thread of its own, while the scheduler goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from skinbatch.errors import StoreError
from skinbatch.scoring.assignment import Assignment
from skinbatch.types import ShardRef


class MemberCount:
    """Track the counting of a shard's members.

    Every header of a tar is read, and the reader may hang on the same bytes that stopped a worker.

    further: time when the last member was passed. result: the number or the error, None while
    counting. awaited: false when the scheduler has stopped waiting.
    """

    def __init__(self, assignment: Assignment, clock: Callable[[], float]) -> None:
        self.assignment = assignment
        self.further = clock()
        self.result: int | Exception | None = None
        self.awaited = True
        self._clock = clock

    def begin(
        self, shard: ShardRef, count_members: Callable[[ShardRef, Callable[[], None]], int]
    ) -> None:
        """Count in a thread. count_members: calls back after each member."""

        def run() -> None:
            try:
                self.result = count_members(shard, self._step)
            except Exception as e:  # raised by the scheduler
                self.result = e

        threading.Thread(target=run, name="count", daemon=True).start()

    def _step(self) -> None:
        if not self.awaited:
            raise StoreError("the count of members is no longer needed")
        self.further = self._clock()
