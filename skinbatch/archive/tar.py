"""Read tar files as a stream.

Python's own reader takes a damaged header for the end of the archive. This reader distinguishes
every early end from the real one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from skinbatch.archive.formats import HEAD_BYTES, is_tar_header
from skinbatch.archive.member import BrokenArchiveError, MemberKind
from skinbatch.archive.packed import UNPACK_ERRORS, packed
from skinbatch.types import Status

_BLOCK = 512
_CHUNK = 1 << 20
_EXTENDED_BYTES = 1 << 20
_MOST_RECORDS = 10_000
# Digits of a record's length, with the blank: no record is longer than its header.
_PAX_DIGITS = 8
_UNPACKED_BYTES = 1 << 30
# A packed tar that unpacks to more than 1 GiB and to more than this many times its size is a bomb:
# photos are compressed already.
_MOST_TIMES = 200
_KINDS: dict[bytes, MemberKind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "link",
    b"2": "link",
    b"5": "folder",
}
_WITHOUT_DATA = b"123456"
# Most extended headers before one member. Tools write up to four.
_MOST_EXTENDED = 64
# Tables cannot hold sizes from here on.
_MOST_BYTES = 2**63


def tar_members(
    stream: BinaryIO, size: int, step: Callable[[], None] = lambda: None
) -> Iterator[TarMember]:
    """Yield the members of a tar and of tars that were joined to it (`cat`).

    The file may be packed with gzip, bzip2, xz or zstd.

    Args:
        size: of the whole file, in bytes.
        step: called for each MiB that is unpacked only to be skipped.

    Raises:
        BrokenArchiveError: the tar cannot be read any further. Without an end mark it is truncated.
            After an end mark, zeros and further tars may follow; anything else is damage.
    """
    tar = _Tar(stream, size, step)
    override: dict[str, str] = {}
    everywhere: dict[str, str] = {}
    extended = 0
    while (block := tar.header()) is not None:
        if tar.is_first:
            override, everywhere = {}, {}
        kind, length = block[156:157], _number(block[124:136])
        if kind in b"LKxgX":
            if (extended := extended + 1) > _MOST_EXTENDED:
                raise BrokenArchiveError(
                    Status.CORRUPT, f"more than {_MOST_EXTENDED} extended headers in a row"
                )
            text = tar.extended(length)
            if kind == b"L":
                override["path"] = _text(text)
            elif kind == b"g":
                everywhere |= _pax(text)
            elif kind in b"xX":
                override |= _pax(text)
            continue
        facts = everywhere | override
        override, extended = {}, 0
        if kind == b"S":
            tar.sparse_map(block)
        sparse = kind == b"S" or any(key.startswith("GNU.sparse.") for key in facts)
        name = facts.get("path") or _name(block)
        if "size" in facts:
            length = _decimal(facts["size"])
        what = "special" if sparse else _KINDS.get(kind, "special")
        if what == "file" and name.endswith("/"):
            what = "folder"
        if kind in _WITHOUT_DATA:
            length = 0
        tar.begin(name, length)
        yield TarMember(tar, name, length, what)
        tar.finish()


class TarMember:
    """Read one member of a tar; see Member."""

    def __init__(self, tar: _Tar, name: str, size: int, kind: MemberKind) -> None:
        self.name, self.size, self.kind = name, size, kind
        self._tar = tar
        self._head = b""

    def head(self) -> bytes:
        if not self._head:
            self._head = self._tar.take(min(HEAD_BYTES, self.size))
        return self._head

    def read(self) -> bytes:
        return self._head + self._tar.take(self.size - len(self._head))

    def skip(self) -> None:
        self._tar.pass_data()


class _Tar:
    """Track the position in the unpacked stream.

    Attributes:
        is_first: whether the last header is the first one of its tar.
    """

    def __init__(self, stream: BinaryIO, size: int, step: Callable[[], None]) -> None:
        self._packed = packed(stream)
        self._stream = (
            stream
            if self._packed is None
            else cast(BinaryIO, io.BufferedReader(self._packed, _CHUNK))
        )
        # The unpacked size is not known.
        self._size = size if self._packed is None else None
        self._most = max(_UNPACKED_BYTES, _MOST_TIMES * size)
        self._step = step
        self._at = 0
        self._data_end = 0
        self._name = ""
        self.is_first = True

    def header(self) -> bytes | None:
        """Return the next header block; None after the last tar."""
        begin = self._at
        block = self._read(_BLOCK)
        if len(block) < _BLOCK:
            lost = "within a header" if block else "without an end marker"
            raise BrokenArchiveError(
                Status.TRUNCATED, f"ends {lost}, at byte {begin + len(block):,}"
            )
        self.is_first = not begin
        if any(block):
            if not is_tar_header(block):
                what = f"no tar header at byte {begin:,}" if begin else "not a tar file"
                raise BrokenArchiveError(Status.CORRUPT, what)
            return block

        end = self._at
        head = self._behind(end)
        if head is not None and not is_tar_header(head):
            what = (
                f"from byte {self._at - len(head):,}, no tar follows the end mark at byte {begin:,}"
            )
            raise BrokenArchiveError(Status.CORRUPT, what)
        self.is_first = True
        return head

    def _behind(self, end: int) -> bytes | None:
        """Return the first block after an end mark that is not all zeros; None if there is none."""
        while True:
            try:
                block = self._read(_BLOCK)
            except BrokenArchiveError:
                # A tar that lost only its padding is complete. A tar that was joined to it is not.
                if self._packed is not None and self._packed.begin < end:
                    return None
                raise
            if any(block):
                return block
            if len(block) < _BLOCK:
                return None
            if self._at % _CHUNK == 0:
                self._step()

    def begin(self, name: str, length: int) -> None:
        self._name, self._data_end = name, self._at + length
        if self._size is not None and self._data_end > self._size:
            raise self._cut()

    def take(self, count: int) -> bytes:
        data = self._read(count)
        if len(data) < count:
            raise self._cut()
        return data

    def pass_data(self) -> None:
        """Skip to the end of the member's data.

        A packed tar that breaks right there contains the member completely, whether it was read or
        skipped.
        """
        if self._at < self._data_end:
            self._skip(self._data_end - self._at)
            if self._at < self._data_end:
                raise self._cut()

    def finish(self) -> None:
        """Skip to the end of the member's data and padding."""
        self.pass_data()
        if padding := -self._at % _BLOCK:
            self._read(padding)

    def extended(self, length: int) -> bytes:
        if length > _EXTENDED_BYTES:
            raise BrokenArchiveError(
                Status.CORRUPT, f"extended header of {length:,} bytes at byte {self._at:,}"
            )
        self.begin("an extended header", length)
        data = self.take(length)
        self.finish()
        return data

    def sparse_map(self, block: bytes) -> None:
        more = block[482]
        while more:
            more = self.take(_BLOCK)[504]

    def _cut(self) -> BrokenArchiveError:
        return BrokenArchiveError(Status.TRUNCATED, f"ends within {self._name!r}")

    def _skip(self, count: int) -> None:
        if self._size is not None:
            self._stream.seek(count, 1)
            self._at += count
            return
        while count and (chunk := self._read(min(count, _CHUNK))):
            count -= len(chunk)
            self._step()

    def _read(self, count: int) -> bytes:
        try:
            data = self._stream.read(count)
        except EOFError:
            raise BrokenArchiveError(
                Status.TRUNCATED, f"the packed data ends early, after byte {self._at:,}"
            ) from None
        except UNPACK_ERRORS as e:
            raise BrokenArchiveError(
                Status.CORRUPT, f"cannot be unpacked after byte {self._at:,}: {e}"
            ) from None
        self._at += len(data)
        if self._size is None and self._at > self._most:
            raise BrokenArchiveError(
                Status.CORRUPT,
                f"unpacks to more than {_MOST_TIMES} times its size, as photos never do; unpack it yourself",
            )
        return data


def _number(field: bytes) -> int:
    """Return a number that is octal text, or binary if the first bit is set."""
    text = field.partition(b"\0")[0].strip() or b"0"
    try:
        value = int.from_bytes(field[1:], "big") if field[0] == 0x80 else int(text, 8)
    except ValueError:
        value = -1
    if not 0 <= value < _MOST_BYTES:
        raise BrokenArchiveError(Status.CORRUPT, f"a size of {field!r}")
    return value


def _decimal(text: str) -> int:
    value = (
        int(text)
        if text.isascii() and text.isdigit() and len(text) < len(str(_MOST_BYTES))
        else _MOST_BYTES
    )
    if value >= _MOST_BYTES:
        raise BrokenArchiveError(Status.CORRUPT, f"a size of {text[:40]!r}")
    return value


def _name(block: bytes) -> str:
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax(data: bytes) -> dict[str, str]:
    r"""Return those records `length key=value\n` that this reader uses."""
    keywords = {}
    at, end, records = 0, len(data.rstrip(b"\0")), 0
    while at < end:
        if (records := records + 1) > _MOST_RECORDS:
            raise BrokenArchiveError(
                Status.CORRUPT, f"an extended header of more than {_MOST_RECORDS:,} records"
            )
        digits = data[at : at + _PAX_DIGITS].partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        key, equals, value = data[at + len(digits) + 1 : at + length].partition(b"=")
        if not equals or not value.endswith(b"\n") or at + length > len(data):
            raise BrokenArchiveError(
                Status.CORRUPT, f"an extended header that reads {data[at : at + 40]!r}"
            )
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse."):
            keywords[key.decode("utf-8", "replace")] = value[:-1].decode("utf-8", "surrogateescape")
        at += length
    return keywords
