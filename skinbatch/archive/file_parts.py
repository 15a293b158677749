"""Split a photo's file into its parts: JPEG segments, PNG and WebP chunks, GIF blocks."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

# Most segments, chunks or boxes of a photo. A file of empty ones would keep a worker busy for
# minutes.
MOST_PARTS = 100_000
# Most blocks of a GIF. In normal files they have 255 bytes.
_MOST_BLOCKS = 2_000_000

START_OF_SCAN = 0xDA
END_OF_IMAGE = 0xD9
# SOF0 to SOF15.
JPEG_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
# TEM, RST0 to RST7 and SOI: markers without a length.
_ALONE = {0x01, *range(0xD0, 0xD9)}
# Completes the last block of a cut GIF, and ends the file.
GIF_END = bytes(256) + b";"

_NO_FILL = re.compile(rb"[^\xff]")
_GIF_INTRODUCER = re.compile(rb"[!,;]")
_NO_ZERO = re.compile(rb"[^\0]")


class CutError(Exception):
    """Report a file that ends early."""


class DamagedError(Exception):
    """Report a file that contradicts itself, or that has more parts than any photo."""


class FilePart(NamedTuple):
    """Locate a part of a file: its name, and its bytes from `start` to `end`, header included."""

    name: bytes
    start: int
    end: int


def ends_after(data: bytes, end: int, what: str) -> None:
    """Raise CutError if `end` lies beyond the end of the file."""
    if end > len(data):
        raise CutError(f"{what} ends at byte {end:,}, the file at {len(data):,}")


def jpeg_segments(data: bytes) -> Iterator[FilePart]:
    """Yield the segments of a JPEG up to its first scan, which is last and ends with the file.

    name: the marker, one byte. Bytes between two segments are skipped as libjpeg does: any other
    bytes, `FF 00` and fill bytes. Raises CutError and DamagedError.
    """
    at = 2
    for _ in range(MOST_PARTS):
        marked = data.find(b"\xff", at)
        if marked < 0 and at < len(data):
            raise DamagedError(f"no marker from byte {at} on")
        behind = None if marked < 0 else _NO_FILL.search(data, marked)
        if behind is None:
            raise CutError("ends before any picture data")

        start, marker = behind.start() - 1, data[behind.start()]
        at = behind.end()
        if marker == 0:
            continue
        if marker == END_OF_IMAGE:
            raise CutError("ends before any picture data")
        if marker == START_OF_SCAN:
            yield FilePart(bytes([marker]), start, len(data))
            return
        if marker not in _ALONE:
            ends_after(data, at + 2, "header")
            length = int.from_bytes(data[at : at + 2])
            if length < 2:
                raise DamagedError(f"segment of {length} bytes at byte {start}")
            at += length
            ends_after(data, at, "header")
        yield FilePart(bytes([marker]), start, at)
    raise DamagedError(f"more than {MOST_PARTS:,} segments")


def png_chunks(data: bytes) -> Iterator[FilePart]:
    """Yield the chunks of a PNG up to its IEND. Raises CutError and DamagedError."""
    at = 8
    for _ in range(MOST_PARTS):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if not name.isalpha():
            raise DamagedError(f"no chunk at byte {at}")
        ends_after(data, end, f"chunk {name.decode('ascii', 'replace')}")
        yield FilePart(name, at, end)
        if name == b"IEND":
            return
        at = end
        if at >= len(data):
            raise CutError("no IEND chunk")
    raise DamagedError(f"more than {MOST_PARTS:,} chunks")


def webp_chunks(data: bytes) -> Iterator[FilePart]:
    """Yield the complete chunks of a WebP."""
    at = 12
    for _ in range(MOST_PARTS):
        if at + 8 > len(data):
            return
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length
        if end > len(data):
            return
        yield FilePart(data[at : at + 4], at, end)
        at = end + length % 2


def gif_blocks(data: bytes) -> Iterator[FilePart]:
    """Yield the blocks of a GIF up to its trailer.

    They are named by their introducer, `!` for extensions and `,` for images. Bytes that begin no
    block are skipped before the first image, as Pillow does. After it, only zeros are skipped:
    other bytes mean that the picture's data does not end where its lengths put the end.

    Raises CutError, DamagedError, or IndexError if the file ends within a block.
    """
    at, blocks, images = 13 + gif_palette_bytes(data[10]), 0, 0
    while data[at] != 0x3B:
        start, introducer = at, data[at : at + 1]
        if introducer == b",":
            at += 10 + gif_palette_bytes(data[at + 9]) + 1
            images += 1
        elif introducer == b"!":
            at += 2
        elif introducer == b"\0" or not images:
            behind = (_NO_ZERO if images else _GIF_INTRODUCER).search(data, at)
            at = len(data) if behind is None else behind.start()
            continue
        else:
            raise DamagedError(f"no block at byte {at}")

        while data[at]:
            at += 1 + data[at]
            blocks += 1
        at += 1
        blocks += 1
        if blocks > _MOST_BLOCKS:
            raise DamagedError(f"more than {_MOST_BLOCKS:,} blocks")
        yield FilePart(introducer, start, at)


def gif_palette_bytes(flags: int) -> int:
    """Return the size of the palette that a screen or image descriptor announces, in bytes."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
