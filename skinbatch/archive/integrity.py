"""Does a photo's file end where it says? Decoders of several formats do not tell."""

from __future__ import annotations

import struct
import zlib

from skinbatch.archive.formats import ImageFormat
from skinbatch.archive.parts import (
    MOST_PARTS,
    CutError,
    DamagedError,
    Part,
    ends_after,
    gif_blocks,
    jpeg_segments,
    png_chunks,
)

_TIFF_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# Tags that decoding needs: bits, strips and their lengths, palette, tiles and theirs, sample format, JPEG tables.
_TIFF_NEEDED = {258, 273, 279, 320, 324, 325, 339, 347}
# Scans of a progressive JPEG: encoders write about ten. Each costs a pass over all of its pixels, and a few bytes.
MOST_SCANS = 200
# Scans times pixels that are decoded where there are more scans than _USUAL_SCANS: some seconds.
_SCANNED_PIXELS = 2_000_000_000
_USUAL_SCANS = 20
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
# Bytes of rows that are unpacked to see whether a PNG's picture is whole.
_MOST_ROWS_BYTES = 1 << 30
_PALETTE_COLOUR = 3
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Boxes of which a file may have several, and behind which a cut is told from bytes that are no box.
_HEIF_BOXES = {b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip", b"uuid", b"idat", b"moof"}


class TooManyScansError(Exception):
    """Decoding it would take minutes."""


def check(data: bytes, kind: ImageFormat) -> None:
    """Raise CutError, DamagedError or TooManyScansError for a file whose picture is not whole.

    What surrounds the picture is not judged. The strips of a TIFF are, when its tags are known: see `check_strips`.
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

    offsets, counts: values of its tags, None where absent. most: bytes of a strip that are read, whatever its tag says;
    None if the tag decides.
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
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            pixels = max(pixels, height * width)

    # Within picture data every 0xFF is stuffed: the first end marker is the picture's, thumbnails lie before it.
    end = data.find(b"\xff\xd9", at)
    if end < 0:
        raise CutError("no end-of-image marker")
    if (scans := data.count(b"\xff\xda", at, end)) > MOST_SCANS:
        raise TooManyScansError(f"{scans:,} scans, over the {MOST_SCANS} that are decoded")
    if scans > _USUAL_SCANS and scans * pixels > _SCANNED_PIXELS:
        raise TooManyScansError(f"{scans:,} scans of {pixels:,} pixels, over the {_SCANNED_PIXELS:,} that are decoded")


def _png(data: bytes) -> None:
    """Check what libpng checks: the order of the file, and the checksums of the chunks that hold the picture.

    Where the picture is whole, nothing behind it condemns it but a missing IEND.
    """
    picture: list[Part] = []
    try:
        for chunk in png_chunks(data):
            if chunk.name == b"IDAT":
                picture.append(chunk)
            if _is_needed(data, chunk.name) and not has_its_checksum(data, chunk):
                where = f"chunk {chunk.name.decode()} at byte {chunk.start}"
                raise DamagedError(f"{where} has another checksum than it says")
    except (CutError, DamagedError):
        last = data.find(b"IEND", picture[-1].end) if picture else -1
        ends = 0 <= last <= len(data) - 8  # a name and its checksum
        if not ends or not _png_rows_are_whole(data, picture):
            raise


def _is_needed(data: bytes, name: bytes) -> bool:
    """Return whether a chunk with a wrong checksum makes a PNG unreadable. Without a palette, PLTE only suggests one."""
    if name == b"PLTE":
        return data[25] == _PALETTE_COLOUR
    return name[0] < 0x60 and name != b"IEND"


def has_its_checksum(data: bytes, chunk: Part) -> bool:
    """Return whether the CRC of a PNG's chunk is that of its bytes."""
    (crc,) = struct.unpack_from(">I", data, chunk.end - 4)
    return bool(crc == zlib.crc32(memoryview(data)[chunk.start + 4 : chunk.end - 4]))


def _png_rows_are_whole(data: bytes, picture: list[Part]) -> bool:
    """Return whether the picture's chunks are undamaged and hold a complete zlib stream, or all rows."""
    if not all(has_its_checksum(data, chunk) for chunk in picture):
        return False

    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    wanted = (width * bits * _PNG_CHANNELS.get(colour, 4) // 8 + 2) * height
    unpacker, unpacked = zlib.decompressobj(), 0
    try:
        for chunk in picture:
            packed = data[chunk.start + 8 : chunk.end - 4]
            while packed and unpacked < min(wanted, _MOST_ROWS_BYTES):
                unpacked += len(unpacker.decompress(packed, 1 << 20))
                packed = unpacker.unconsumed_tail
    except zlib.error:
        return False
    return unpacker.eof or wanted <= unpacked


def _boxes(data: bytes) -> None:
    """Check the boxes of a HEIC or AVIF. Bytes behind the picture that begin no box are ignored, as libavif does."""
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
    """The directory, and the values that decoding needs; offsets of other tags are wrong in many sound files."""
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
