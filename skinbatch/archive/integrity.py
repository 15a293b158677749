"""Does a photo's file end where it says? Decoders of several formats do not tell."""

from __future__ import annotations

import re
import struct
import zlib

from skinbatch.archive.formats import ImageFormat

_TIFF_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_NEEDED = {258, 273, 279, 320, 324, 325, 339, 347}
"""Bits, strips and their lengths, palette, tiles and theirs, sample format, JPEG tables."""
_MOST_PARTS = 100_000
"""Segments, chunks or boxes of a photo. A file of nothing but empty ones would keep a worker busy for minutes."""
_MOST_BLOCKS = 2_000_000
"""Of a GIF, which are 255 bytes in files that mean to show something."""
MOST_SCANS = 200
"""Of a progressive JPEG: encoders write about ten. Each costs a pass over all of its pixels, and a few bytes."""
_SCANNED_PIXELS = 2_000_000_000
"""Scans times pixels that are decoded where there are more scans than _USUAL_SCANS: some seconds."""
_USUAL_SCANS = 20
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_NO_PADDING = re.compile(rb"[^\xff]")


class CutError(Exception):
    """The file ends early."""


class DamagedError(Exception):
    """The file contradicts itself, or is of more parts than any photo."""


class TooManyScansError(Exception):
    """Decoding it would take minutes."""


def check(data: bytes, kind: ImageFormat) -> None:
    """Raises CutError, DamagedError or TooManyScansError. TIFF is judged when its tags are known: see `check_strips`."""
    try:
        if kind == "jpeg":
            _jpeg(data)
        elif kind == "png":
            _png(data)
        elif kind == "webp":
            _ends_after(data, 8 + int.from_bytes(data[4:8], "little"), "RIFF chunk")
        elif kind in ("avif", "heif"):
            _boxes(data)
        elif kind == "gif":
            _gif(data)
        elif kind == "tiff":
            _tiff(data)
    except (IndexError, struct.error):
        raise CutError("ends within a header") from None


def check_strips(data: bytes, offsets: object, counts: object) -> None:
    """TIFF: every strip or tile lies within the file. offsets, counts: values of its tags, None where absent."""
    if isinstance(offsets, tuple) and isinstance(counts, tuple):
        for offset, count in zip(offsets, counts, strict=False):
            _ends_after(data, int(offset) + int(count), "strip")


def _ends_after(data: bytes, end: int, what: str) -> None:
    if end > len(data):
        raise CutError(f"{what} ends at byte {end:,}, the file at {len(data):,}")


def _jpeg(data: bytes) -> None:
    at, pixels = 2, 0
    for _ in range(_MOST_PARTS):
        if data[at] != 0xFF:
            raise DamagedError(f"no marker at byte {at}")
        if (behind := _NO_PADDING.search(data, at)) is None:
            raise CutError("ends before any picture data")
        at = behind.start() - 1
        marker = data[at + 1]
        if marker == 0xDA:
            break
        if marker == 0xD9:
            raise CutError("ends before any picture data")
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            pixels = max(pixels, height * width)
        alone = marker == 0x01 or 0xD0 <= marker <= 0xD8
        at += 2 if alone else 2 + int.from_bytes(data[at + 2 : at + 4])
        _ends_after(data, at + 2, "header")
    else:
        raise DamagedError(f"more than {_MOST_PARTS:,} segments")
    # Within picture data every 0xFF is stuffed: the first end marker is the picture's, thumbnails lie before it.
    end = data.find(b"\xff\xd9", at)
    if end < 0:
        raise CutError("no end-of-image marker")
    if (scans := data.count(b"\xff\xda", at, end)) > MOST_SCANS:
        raise TooManyScansError(f"{scans:,} scans, over the {MOST_SCANS} that are decoded")
    if scans > _USUAL_SCANS and scans * pixels > _SCANNED_PIXELS:
        raise TooManyScansError(f"{scans:,} scans of {pixels:,} pixels, over the {_SCANNED_PIXELS:,} that are decoded")


def _png(data: bytes) -> None:
    at = 8
    for _ in range(_MOST_PARTS):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if not name.isalpha():
            raise DamagedError(f"no chunk at byte {at}")
        _ends_after(data, end, f"chunk {name.decode('ascii', 'replace')}")
        if name[0] < 0x60:  # critical chunks
            (crc,) = struct.unpack_from(">I", data, end - 4)
            if crc != zlib.crc32(memoryview(data)[at + 4 : end - 4]):
                raise DamagedError(f"chunk {name.decode()} at byte {at} has another checksum than it says")
        if name == b"IEND":
            return
        at = end
        if at >= len(data):
            raise CutError("no IEND chunk")
    raise DamagedError(f"more than {_MOST_PARTS:,} chunks")


def _boxes(data: bytes) -> None:
    at = parts = 0
    while at < len(data):
        parts += 1
        if parts > _MOST_PARTS:
            raise DamagedError(f"more than {_MOST_PARTS:,} boxes")
        size, name = struct.unpack_from(">I4s", data, at)
        if size == 0:  # to the end of the file
            return
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
        if size < 8:
            raise DamagedError(f"box of {size} bytes at byte {at}")
        _ends_after(data, at + size, f"box {name.decode('ascii', 'replace')}")
        at += size
    if b"mdat" not in data and b"idat" not in data:
        raise CutError("ends before any picture data")


def _gif(data: bytes) -> None:
    at, blocks = 13 + _palette(data[10]), 0
    while data[at] != 0x3B:
        if data[at] == 0x2C:
            at += 10 + _palette(data[at + 9]) + 1
        elif data[at] == 0x21:
            at += 2
        else:
            raise DamagedError(f"no block at byte {at}")
        while data[at]:
            at += 1 + data[at]
            blocks += 1
        at += 1
        blocks += 1
        if blocks > _MOST_BLOCKS:
            raise DamagedError(f"more than {_MOST_BLOCKS:,} blocks")


def _palette(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _tiff(data: bytes) -> None:
    """The directory, and the values that decoding needs; offsets of other tags are wrong in many sound files."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in (data[2], data[3])
    offset_form, count_form, begin = ("Q", "Q", 8) if big else ("I", "H", 4)
    (first,) = struct.unpack_from(order + offset_form, data, begin)
    _ends_after(data, first + struct.calcsize(count_form), "directory")
    (entries,) = struct.unpack_from(order + count_form, data, first)
    entry_form = f"{order}HH{offset_form}{offset_form}"
    step = struct.calcsize(entry_form)
    at = first + struct.calcsize(count_form)
    _ends_after(data, at + step * entries, "directory")
    if entries > _MOST_PARTS:
        raise DamagedError(f"more than {_MOST_PARTS:,} tags")
    for _ in range(entries):
        tag, kind, count, offset = struct.unpack_from(entry_form, data, at)
        size = count * _TIFF_SIZES.get(kind, 1)
        if tag in _TIFF_NEEDED and size > struct.calcsize(offset_form):
            _ends_after(data, offset + size, f"tag {tag}")
        at += step
