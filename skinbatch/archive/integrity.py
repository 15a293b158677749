"""Check that a photo's file is complete. Decoders of several formats do not report missing ends."""

from __future__ import annotations

import struct
import zlib

from skinbatch.archive.file_parts import (
    JPEG_FRAMES,
    MOST_PARTS,
    CutError,
    DamagedError,
    FilePart,
    ends_after,
    gif_blocks,
    jpeg_segments,
    png_chunks,
)
from skinbatch.archive.formats import ImageFormat

_TIFF_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# Tags that decoding needs: bits, strips and their lengths, palette, tiles and their lengths, sample
# format, JPEG tables.
_TIFF_NEEDED = {258, 273, 279, 320, 324, 325, 339, 347}
# Most scans of a progressive JPEG. Encoders write about ten. Each scan costs a pass over all
# pixels, but only a few bytes.
MOST_SCANS = 200
# Most scans times pixels of a JPEG with more than _USUAL_SCANS scans. They take some seconds.
_SCANNED_PIXELS = 2_000_000_000
_USUAL_SCANS = 20
_PALETTE_COLOUR = 3
# Boxes of which a file may have several. After them, a cut file can be distinguished from bytes
# that are not a box.
_HEIF_BOXES = {b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip", b"uuid", b"idat", b"moof"}


class TooManyScansError(Exception):
    """Report a photo that would take minutes to decode."""


def check(data: bytes, kind: ImageFormat) -> None:
    """Raise CutError, DamagedError or TooManyScansError for a file that is not complete.

    Much of what surrounds the picture is ignored. `endings.is_whole` finds out whether the picture
    of a file that is refused here is complete all the same. The strips of a TIFF are checked by `check_strips`, once
    its tags are known.
    """
    try:
        if kind == "jpeg":
            _jpeg(data)
        elif kind == "png":
            _png(data)
        elif kind == "webp":
            ends_after(data, 8 + int.from_bytes(data[4:8], "little"), "RIFF chunk")
        elif kind in ("avif", "heif"):
            _boxes(data)
        elif kind == "gif":
            _gif(data)
        elif kind == "tiff":
            _tiff(data)
    except (IndexError, struct.error):
        raise CutError("ends within a header") from None


def check_strips(data: bytes, offsets: object, counts: object, most: int | None = None) -> None:
    """Raise CutError unless every strip or tile of a TIFF lies within the file.

    offsets, counts: values of its tags, None if absent. most: number of bytes of a strip that are
    read, whatever its tag records; None if the tag decides.
    """
    if not (isinstance(offsets, tuple) and isinstance(counts, tuple)):
        return
    for offset, count in zip(offsets, counts, strict=False):
        size = int(count) if most is None else min(int(count), most)
        ends_after(data, int(offset) + size, "strip")


def _jpeg(data: bytes) -> None:
    at = pixels = 0
    for segment in jpeg_segments(data):
        marker = segment.name[0]
        at = segment.start
        if marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            pixels = max(pixels, height * width)

    # Picture data escapes every 0xFF, so the first end marker is the picture's. Thumbnails come
    # earlier.
    end = data.find(b"\xff\xd9", at)
    if (scans := data.count(b"\xff\xda", at, end if end >= 0 else len(data))) > MOST_SCANS:
        raise TooManyScansError(f"{scans:,} scans, over the {MOST_SCANS} that are decoded")
    if scans > _USUAL_SCANS and scans * pixels > _SCANNED_PIXELS:
        raise TooManyScansError(
            f"{scans:,} scans of {pixels:,} pixels, over the {_SCANNED_PIXELS:,} that are decoded"
        )
    if end < 0:
        raise CutError("no end-of-image marker")


def _png(data: bytes) -> None:
    """Check what libpng checks: the order of chunks, and the checksums of those with the picture."""
    for chunk in png_chunks(data):
        if is_needed(data, chunk.name) and not has_its_checksum(data, chunk):
            where = f"chunk {chunk.name.decode()} at byte {chunk.start}"
            raise DamagedError(f"{where} does not match its checksum")


def is_needed(data: bytes, name: bytes) -> bool:
    """Return whether a wrong checksum of this chunk makes a PNG unreadable.

    In a picture without a palette, PLTE is only a suggestion.
    """
    if name == b"PLTE":
        return data[25] == _PALETTE_COLOUR
    return name[0] < 0x60 and name != b"IEND"


def has_its_checksum(data: bytes, chunk: FilePart) -> bool:
    """Return whether the CRC of a PNG chunk matches its bytes."""
    (crc,) = struct.unpack_from(">I", data, chunk.end - 4)
    return bool(crc == zlib.crc32(memoryview(data)[chunk.start + 4 : chunk.end - 4]))


def _boxes(data: bytes) -> None:
    """Check the boxes of a HEIC or AVIF.

    Bytes after the picture that do not begin a box are ignored, as by libavif.
    """
    at = parts = 0
    names: set[bytes] = set()
    while at < len(data):
        parts += 1
        if parts > MOST_PARTS:
            raise DamagedError(f"more than {MOST_PARTS:,} boxes")
        if {b"meta", b"mdat"} <= names and data[at + 4 : at + 8] not in _HEIF_BOXES:
            return
        size, name = struct.unpack_from(">I4s", data, at)
        if size == 0:  # to the end of the file
            return
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
        if size < 8:
            raise DamagedError(f"box of {size} bytes at byte {at}")
        ends_after(data, at + size, f"box {name.decode('ascii', 'replace')}")
        names.add(name)
        at += size
    if b"mdat" not in data and b"idat" not in data:
        raise CutError("ends before any picture data")


def _gif(data: bytes) -> None:
    for _ in gif_blocks(data):
        pass


def _tiff(data: bytes) -> None:
    """Check the directory, and the values that decoding needs.

    Other tags have wrong offsets in many intact files.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in (data[2], data[3])
    offset_form, count_form, begin = ("Q", "Q", 8) if big else ("I", "H", 4)
    (first,) = struct.unpack_from(order + offset_form, data, begin)
    ends_after(data, first + struct.calcsize(count_form), "directory")
    (entries,) = struct.unpack_from(order + count_form, data, first)
    entry_form = f"{order}HH{offset_form}{offset_form}"
    step = struct.calcsize(entry_form)
    at = first + struct.calcsize(count_form)
    ends_after(data, at + step * entries, "directory")
    if entries > MOST_PARTS:
        raise DamagedError(f"more than {MOST_PARTS:,} tags")
    for _ in range(entries):
        tag, kind, count, offset = struct.unpack_from(entry_form, data, at)
        size = count * _TIFF_SIZES.get(kind, 1)
        if tag in _TIFF_NEEDED and size > struct.calcsize(offset_form):
            ends_after(data, offset + size, f"tag {tag}")
        at += step
