"""How much of a unit a worker holds at once."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError


class Budget:
    """Bounds one unit's photos, from the threads that read them to the models that let go of them.

    Files are read while those that wait to be decoded are under the limit. Photos are decoded in order, while the pixels
    of all that are not scored yet, theirs included, are within it. The photo that is asked for always passes once no
    other is being scored, whatever it needs: nothing would make room for it. So no more pixels are held than the limit,
    or the largest photo and one batch in the making.
    """

    def __init__(self, limit: int, photos: int) -> None:
        """limit: bytes of files, and bytes of pixels. photos: that may be in the making."""
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
            self._changed.wait_for(lambda: self._closed or self._files < self.limit or order <= self._asked)
            self._files += size

    def enter(self, order: int, pixels: int) -> None:
        """Wait for room for the pixels of a photo, in bytes, then hold them. CancelledError once closed."""
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
        """The file is gone, and there are so many bytes of pixels, which may be others than its header promised."""
        with self._changed:
            self._files -= size
            self._pixels += pixels - expected
            self._changed.notify_all()

    def ask(self, order: int) -> None:
        """This photo is waited for; all before it are batches, or one in the making."""
        with self._changed:
            self._asked = order
            self._changed.notify_all()

    def scoring(self, pixels: int) -> None:
        """A batch goes to the models."""
        with self._changed:
            self._scoring += pixels

    def scored(self, pixels: int) -> None:
        """Nobody holds the batch's pixels any more."""
        with self._changed:
            self._scoring -= pixels
            self._pixels -= pixels
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
