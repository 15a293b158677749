"""Limit how much of a unit a worker holds at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError


class Budget:
    """Limit one unit's photos, from the threads that read them to the models that release them.

    Files are read while those that wait to be decoded are under the limit. Photos are decoded in
    order while the pixels of all photos that are not scored yet, including the new one, are within
    the limit.

    The photo that is asked for always passes once no other is being scored, whatever it needs,
    because nothing else would make room for it. So the worker never holds more pixels than the
    limit, or than the largest photo and one batch in preparation.
    """

    def __init__(self, limit: int, photos: int) -> None:
        """Create a budget. limit: bytes of files, and bytes of pixels. photos: how many may be in
        preparation.
        """
        self.limit = limit
        self.photos = photos
        self._files = 0
        self._pixels = 0
        self._scoring = 0
        self._asked = -1
        self._entered = -1
        self._closed = False
        self._changed = threading.Condition()

    def read(self, order: int, size: int) -> None:
        """Wait for room for a file, then hold it."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._files < self.limit or order <= self._asked
            )
            self._files += size

    def enter(self, order: int, pixels: int) -> None:
        """Wait for room for the pixels of a photo, in bytes, then hold them.

        Raises CancelledError once the budget is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._may_enter(order, pixels))
            if self._closed:
                raise CancelledError
            self._entered = order
            self._pixels += pixels
            self._changed.notify_all()

    def _may_enter(self, order: int, pixels: int) -> bool:
        if order != self._entered + 1:
            return False
        return self._pixels + pixels <= self.limit or (order <= self._asked and not self._scoring)

    def decoded(self, size: int, expected: int, pixels: int) -> None:
        """Report that the file is released and this many bytes of pixels exist.

        They may differ from what the header promised.
        """
        with self._changed:
            self._files -= size
            self._pixels += pixels - expected
            self._changed.notify_all()

    def ask(self, order: int) -> None:
        """Report that this photo is waited for. All before it are in batches, or in one in
        preparation.
        """
        with self._changed:
            self._asked = order
            self._changed.notify_all()

    def scoring(self, pixels: int) -> None:
        """Report that a batch goes to the models."""
        with self._changed:
            self._scoring += pixels

    def scored(self, pixels: int) -> None:
        """Report that the batch's pixels are released."""
        with self._changed:
            self._scoring -= pixels
            self._pixels -= pixels
            self._changed.notify_all()

    def close(self) -> None:
        """Release all threads that wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
