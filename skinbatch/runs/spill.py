"""Keep bytes in a temporary file once they are many."""

from __future__ import annotations

import io
import mmap
import tempfile
from dataclasses import dataclass
from typing import IO

# Starts of pieces in the file are multiples of this, as Arrow likes them.
_ALIGNED = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Name a piece of the file by its place, in bytes."""

    start: int
    length: int


class Spill:
    """Keep pieces of bytes: in memory at first, then in a temporary file, which ends with its user.

    Not for several threads. If the file cannot be written, because the disk is full or there is
    none, further pieces stay in memory.
    """

    def __init__(self, in_memory: int) -> None:
        """Create an empty one. in_memory: bytes to keep in memory."""
        self._room = in_memory
        self._file: IO[bytes] | None = None
        self._mapped: mmap.mmap | None = None

    def keep(self, data: bytes) -> bytes | Place:
        """Keep a piece and return it, or its place in the file."""
        if len(data) <= self._room:
            self._room -= len(data)
            return data
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="skinbatch-", buffering=0)  # noqa: SIM115 - lives as long as this
            start = -(-self._file.seek(0, io.SEEK_END) // _ALIGNED) * _ALIGNED
            self._file.seek(start)
            written = self._file.write(data)
        except OSError:
            return data
        return Place(start, len(data)) if written == len(data) else data

    def read(self, kept: bytes | Place) -> bytes:
        """Return a piece that was kept."""
        if not isinstance(kept, Place):
            return kept
        assert self._file is not None
        self._file.seek(kept.start)
        return self._file.read(kept.length)

    def view(self, kept: bytes | Place) -> memoryview:
        """Return a piece without copying it. Nothing may be kept after the first view."""
        if not isinstance(kept, Place):
            return memoryview(kept)
        if self._mapped is None:
            assert self._file is not None
            self._mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return memoryview(self._mapped)[kept.start : kept.start + kept.length]

    def forget(self) -> None:
        """Let the system take back the memory of views. It reads the file again when they are used."""
        if self._mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)
