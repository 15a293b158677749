"""Keep many small texts in little memory: compressed by the page, and on disk if they are many."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

import pyarrow as pa

from skinbatch.runs.spill import Place, Spill

_PER_PAGE = 256
# Number of pages kept uncompressed. Texts are mostly read in the order in which they were added.
_UNPACKED = 4
# Bytes of compressed pages to keep in memory, enough for about 100,000 receipts.
_IN_MEMORY = 32 << 20


class Pages:
    """Store texts by number, from 0, in the order in which they were added. Not for several
    threads.

    in_memory: bytes of compressed pages to keep in memory. Further pages go to a temporary file, or
    stay in memory if it cannot be written.
    """

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        self._codec = pa.Codec("zstd")
        self._packed: list[tuple[int, bytes | Place]] = []
        self._spill = Spill(in_memory)
        self._open: list[bytes] = []
        self._unpacked: OrderedDict[int, list[bytes]] = OrderedDict()

    def add(self, text: bytes) -> int:
        """Add a text without line feeds and return its number."""
        number = len(self._packed) * _PER_PAGE + len(self._open)
        self._open.append(text)
        if len(self._open) == _PER_PAGE:
            page = b"\n".join(self._open)
            packed = self._codec.compress(page, asbytes=True)
            self._packed.append((len(page), self._spill.keep(packed)))
            self._open = []
        return number

    def __getitem__(self, number: int) -> bytes:
        page, line = divmod(number, _PER_PAGE)
        if page == len(self._packed):
            return self._open[line]
        if page not in self._unpacked:
            size, kept = self._packed[page]
            packed = self._spill.read(kept)
            whole = cast(
                bytes, self._codec.decompress(packed, decompressed_size=size, asbytes=True)
            )
            self._unpacked[page] = whole.split(b"\n")
            if len(self._unpacked) > _UNPACKED:
                self._unpacked.popitem(last=False)
        self._unpacked.move_to_end(page)
        return self._unpacked[page][line]
