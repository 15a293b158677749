"""Record whether the reader of a shard computes or waits for its store.

A reader that hangs must not be mistaken for a store that does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import BinaryIO


class Reading:
    """Observe the reading of one shard.

    activity: entered while the reader computes, in whichever thread. step: called when the reader
    makes progress without yielding a photo.
    """

    def __init__(
        self,
        activity: AbstractContextManager[None] | None = None,
        step: Callable[[], None] = lambda: None,
    ) -> None:
        self.step = step
        self._activity = activity or nullcontext()
        self._lock = threading.Lock()
        self._computing = False
        self._calls = 0

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Mark the reader's work, including its calls of the store."""
        with self._activity:
            self._computing = True
            try:
                yield
            finally:
                self._computing = False

    @contextmanager
    def at_store(self) -> Iterator[None]:
        """Mark a call of the store, which may come from another thread than the reader's."""
        with self._lock:
            self._calls += 1
            if self._computing and self._calls == 1:
                self._activity.__exit__(None, None, None)
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                if self._computing and self._calls == 0:
                    self._activity.__enter__()


class WatchedStream:
    """Mark the reads of a store's stream as calls of the store.

    It has the methods that readers of tars, gzip, bz2 and lzma need.
    """

    def __init__(self, stream: BinaryIO, reading: Reading) -> None:
        self._stream, self._reading = stream, reading

    def read(self, size: int = -1) -> bytes:
        with self._reading.at_store():
            return self._stream.read(size)

    def peek(self, size: int = 0) -> bytes:
        with self._reading.at_store():
            head: bytes = self._stream.peek(size)  # type: ignore[attr-defined]
            return head

    def seek(self, offset: int, whence: int = 0) -> int:
        with self._reading.at_store():
            return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return self._stream.seekable()

    def readable(self) -> bool:
        return True
