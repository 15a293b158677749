"""Files packed with gzip, bzip2 or xz, also several joined into one."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

_CHUNK = 1 << 16
_KINDS: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", lzma.LZMADecompressor),
)


def packed(stream: BinaryIO) -> PackedStream | None:
    """Return a reader of what is packed in `stream`; None if it is not packed, in a way that is known here."""
    head: bytes = stream.peek(6)  # type: ignore[attr-defined]
    for signature, new in _KINDS:
        if head.startswith(signature):
            return PackedStream(stream, signature, new)
    return None


class PackedStream(io.RawIOBase):
    """Bytes of packed files that follow each other, without the zeros that may lie between and behind them.

    Raises EOFError where one of them ends early, and zlib.error, OSError or LZMAError where it is damaged.

    Attributes:
        begin: where the bytes of the file that is now unpacked begin.
    """

    def __init__(self, stream: BinaryIO, signature: bytes, new: Callable[[], Any]) -> None:
        self._stream, self._signature, self._new = stream, signature, new
        self._unpacker = new()
        self._input = b""
        self._at = 0
        self.begin = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._some(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _some(self, count: int) -> bytes:
        """Return up to `count` bytes, none only at the end."""
        while True:
            if self._unpacker.eof and not self._next_file():
                return b""
            data: bytes = self._unpacker.decompress(self._input, count)
            # The others keep what they have not used yet.
            self._input = getattr(self._unpacker, "unconsumed_tail", b"")
            if data:
                return data
            if not self._unpacker.eof:
                self._input += self._stream.read(_CHUNK) or self._cut()

    def _next_file(self) -> bool:
        rest = self._unpacker.unused_data.lstrip(b"\0")
        while not rest:
            chunk = self._stream.read(_CHUNK)
            if not chunk:
                return False
            rest = chunk.lstrip(b"\0")

        self.begin = self._at
        if len(rest) < len(self._signature):
            rest += self._stream.read(_CHUNK)
        if not rest.startswith(self._signature[: len(rest)]):
            raise OSError("what follows is not packed like what is before it")
        self._unpacker, self._input = self._new(), rest
        return True

    def _cut(self) -> bytes:
        raise EOFError("ended early")
