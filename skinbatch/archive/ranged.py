"""Read an object of a store by ranges, as a seekable file."""

from __future__ import annotations

import io
import os
from collections import OrderedDict

from skinbatch.archive.reader_activity import Reading
from skinbatch.storage.store import Store

_KEPT = 8


class RangedFile(io.RawIOBase):
    """Read an object as a file, keeping the last few blocks.

    Many small reads near each other are one request. version: every read must be of this version;
    otherwise ChangedError is raised.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        size: int,
        version: str | None,
        *,
        block: int = 1 << 20,
        reading: Reading | None = None,
    ) -> None:
        self._store, self._key, self._size, self._version, self._block = (
            store,
            key,
            size,
            version,
            block,
        )
        self._reading = reading or Reading()
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    @property
    def place(self) -> tuple[Store, str, int, str | None]:
        """Return the arguments with which another process opens the file."""
        return self._store, self._key, self._size, self._version

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        target = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if target < 0:
            raise OSError(22, "seek before the beginning")
        self._at = target
        return target

    def read(self, size: int | None = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._at + size, self._size)
        if stop <= self._at:
            return b""
        near = self._kept()
        if len(near) < stop - self._at:
            near += self._fetch(self._at + len(near), stop)
        data = near[: stop - self._at]
        self._at = stop
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _kept(self) -> bytes:
        """Return the kept bytes from the current position on."""
        for start, block in reversed(self._blocks.items()):
            if start <= self._at < start + len(block):
                return block[self._at - start :]
        return b""

    def _fetch(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop), or more."""
        if stop - start > self._block:  # keeping large reads would only cost memory
            return self._get(start, stop)
        # Ends of files are read backwards (a zip's directory, a Parquet footer), so fetch one block
        # that ends there.
        ends = stop > self._size - self._block // 16
        begin = max(0, min(start, self._size - self._block)) if ends else start
        block = self._get(begin, min(begin + self._block, self._size))
        self._blocks[begin] = block
        if len(self._blocks) > _KEPT:
            self._blocks.popitem(last=False)
        return block[start - begin :]

    def _get(self, start: int, stop: int) -> bytes:
        with self._reading.at_store():
            return self._store.get_range(self._key, start, stop, version=self._version)
