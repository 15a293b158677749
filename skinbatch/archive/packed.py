"""Unpack files packed with gzip, bzip2, xz or zstd, also several joined into one."""

from __future__ import annotations

import bz2
import io
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_CHUNK = 1 << 16
_KINDS: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", lambda: _Gunzip()),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", lzma.LZMADecompressor),
    (b"\x28\xb5\x2f\xfd", zstd.ZstdDecompressor),
)
# What a PackedStream raises for damaged data.
UNPACK_ERRORS = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError)


def packed(stream: BinaryIO) -> PackedStream | None:
    """Return a reader that unpacks `stream`; None if it is not packed in a known way."""
    head: bytes = stream.peek(6)  # type: ignore[attr-defined]
    for signature, new in _KINDS:
        if head.startswith(signature):
            return PackedStream(stream, signature, new)
    return None


class PackedStream(io.RawIOBase):
    """Read the bytes of packed files that follow each other.

    Zeros between and after them are skipped. Raises EOFError if one of the files ends early, and
    one of UNPACK_ERRORS if it is damaged.

    Attributes:
        begin: position of the first byte of the file that is being unpacked.
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
        """Return up to `count` bytes; none only at the end."""
        while True:
            if self._unpacker.eof and not self._next_file():
                return b""
            data: bytes = self._unpacker.decompress(self._input, count)
            self._input = b""
            if data:
                return data
            if not self._unpacker.eof:
                self._input = self._stream.read(_CHUNK)
                if not self._input:
                    raise EOFError("ended early")

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


class _Gunzip:
    """Unpack one gzip file, with the interface of `bz2.BZ2Decompressor`.

    zlib returns nothing from a call in which it finds a wrong checksum. This class returns
    everything before the error first.
    """

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(31)
        self._error: zlib.error | None = None

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._error is not None:
            raise self._error
        data = self._zlib.unconsumed_tail + data
        before = self._zlib.copy()
        try:
            return self._zlib.decompress(data, max_length)
        except zlib.error as e:
            self._error = e
        whole = self._before_error(before, data)[:max_length]
        if not whole:
            raise self._error
        return whole

    @staticmethod
    def _before_error(unpacker: Any, data: bytes) -> bytes:
        parts = []
        try:
            for at in range(len(data)):
                parts.append(unpacker.decompress(data[at : at + 1]))
        except zlib.error:
            pass
        return b"".join(parts)
