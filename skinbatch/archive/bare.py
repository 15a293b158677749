"""Strip a photo's file to its picture, for decoders that fail on profiles, text or stray bytes."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from skinbatch.archive.file_parts import (
    END_OF_IMAGE,
    GIF_END,
    START_OF_SCAN,
    CutError,
    DamagedError,
    FilePart,
    gif_blocks,
    gif_palette_bytes,
    jpeg_segments,
    png_chunks,
    webp_chunks,
)
from skinbatch.archive.formats import ImageFormat
from skinbatch.archive.integrity import has_its_checksum

# JPEG markers that no decoder needs: TEM, RST0 to RST7, comments.
_JPEG_DROPPED = {0x01, *range(0xD0, 0xD8), 0xFE}
_APP0, _APP1, _APP14, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
# Number of bytes that libjpeg reads of APP0 and APP14, including the segment's marker and length.
_JFIF_BYTES, _ADOBE_BYTES = 18, 16
_EXIF = b"Exif\0\0"
_END = bytes([0xFF, END_OF_IMAGE])

# Number of bytes of a PNG's transparency by its colour type; for palettes, the maximum.
_TRANSPARENCY_BYTES = {0: 2, 2: 6, 3: 256}
_PALETTE_COLOUR = 3
# Most bytes of rows that are unpacked to correct a wrong checksum.
_MOST_ROWS_BYTES = 1 << 30

_ANIMATED, _WITH_ALPHA = 0x02, 0x10


@dataclass(frozen=True, slots=True)
class Bare:
    """Hold a stripped file.

    data: a file of the same format with the same pixels. exif: EXIF data of the photo's file, or
    None.
    """

    data: bytes
    exif: bytes | None


def has_strays(data: bytes, kind: ImageFormat) -> bool:
    """Return whether bytes lie between the segments of a JPEG. Some decoders skip them one by one.

    The file must have passed `integrity.check`.
    """
    if kind != "jpeg":
        return False
    at = 2
    for segment in jpeg_segments(data):
        if segment.start != at:
            return True
        at = segment.end
    return False


def bare(data: bytes, kind: ImageFormat) -> Bare | None:
    """Return the file with only its picture; None if the picture cannot be separated.

    The picture's own bytes stay as they are, so that damage to them is still found. A missing end
    is added. An animation becomes its first frame.
    """
    try:
        if kind == "jpeg":
            return _jpeg(data)
        if kind == "png":
            return _png(data)
        if kind == "webp":
            return _webp(data)
        if kind == "gif":
            return _gif(data)
    except (CutError, DamagedError, IndexError, struct.error):
        return None
    return None


def _jpeg(data: bytes) -> Bare:
    kept = [data[:2]]
    exif = []
    for segment in jpeg_segments(data):
        marker = segment.name[0]
        body = data[segment.start : segment.end]
        if marker == START_OF_SCAN:
            kept += [body, b"" if _END in body else _END]
        elif marker == _APP0:
            if len(body) >= _JFIF_BYTES and body[4:9] == b"JFIF\0":
                kept.append(body)
        elif marker == _APP14:
            if len(body) >= _ADOBE_BYTES and body[4:9] == b"Adobe":
                kept.append(body)
        elif _APP0 < marker <= _APP15:
            if marker == _APP1 and body[4:10] == _EXIF:
                exif.append(body[10:])
        elif marker not in _JPEG_DROPPED:
            kept.append(body)
    return Bare(b"".join(kept), b"".join(exif) or None)


def _png(data: bytes) -> Bare:
    colour = data[25]
    kept: list[bytes] = []
    picture: list[FilePart] = []
    exif = None
    at = 8
    try:
        for chunk in png_chunks(data):
            at = chunk.end
            whole = has_its_checksum(data, chunk)
            body = data[chunk.start : chunk.end]
            if chunk.name == b"IDAT":
                picture.append(chunk)
            elif chunk.name == b"eXIf" and whole:
                exif = body[8:-4]
            elif chunk.name == b"IHDR" or (chunk.name == b"PLTE" and colour == _PALETTE_COLOUR):
                kept.append(body)
            elif chunk.name == b"tRNS" and whole and _is_transparency(colour, len(body) - 12):
                kept.append(body)  # libpng ignores one with a wrong checksum or length
    except (CutError, DamagedError, struct.error):
        if data[at + 4 : at + 8] == b"IDAT":  # cut, or of a wrong length
            length = int.from_bytes(data[at : at + 4])
            picture.append(FilePart(b"IDAT", at, at + 12 + length))
        if not picture:
            raise

    stream = b"".join(data[chunk.start + 8 : chunk.end - 4] for chunk in picture)
    kept += [_png_chunk(b"IDAT", _with_its_checksum(stream)), _png_chunk(b"IEND", b"")]
    return Bare(data[:8] + b"".join(kept), exif)


def _is_transparency(colour: int, size: int) -> bool:
    stated = _TRANSPARENCY_BYTES.get(colour)
    return size == stated or (colour == _PALETTE_COLOUR and 0 < size <= 256)


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), name) + body + struct.pack(">I", zlib.crc32(name + body))


def _with_its_checksum(stream: bytes) -> bytes:
    """Return a zlib stream with the right Adler-32, about which libpng only warns.

    Streams that cannot be unpacked are returned as they are.
    """
    unpacker, checksum, unpacked = zlib.decompressobj(-15), 1, 0
    packed = stream[2:]
    try:
        while not unpacker.eof and packed and unpacked < _MOST_ROWS_BYTES:
            rows = unpacker.decompress(packed, 1 << 20)
            checksum = zlib.adler32(rows, checksum)
            unpacked += len(rows)
            packed = unpacker.unconsumed_tail
    except zlib.error:
        return stream
    if not unpacker.eof:
        return stream
    return stream[: len(stream) - len(unpacker.unused_data)] + struct.pack(">I", checksum)


def _webp(data: bytes) -> Bare | None:
    chunks: dict[bytes, bytes] = {}
    for chunk in webp_chunks(data):
        chunks.setdefault(
            chunk.name, data[chunk.start : chunk.end] + b"\0" * ((chunk.end - chunk.start) % 2)
        )
    picture = chunks.get(b"VP8 ") or chunks.get(b"VP8L")
    header = chunks.get(b"VP8X", b"")
    if picture is None or (header and header[8] & _ANIMATED):
        return None

    alpha = chunks.get(b"ALPH", b"")
    if header and alpha:
        picture = header[:8] + bytes([_WITH_ALPHA]) + header[9:] + alpha + picture
    exif = chunks[b"EXIF"][8:] if b"EXIF" in chunks else None
    return Bare(b"RIFF" + struct.pack("<I", 4 + len(picture)) + b"WEBP" + picture, exif)


def _gif(data: bytes) -> Bare | None:
    control = b""
    data += GIF_END
    for block in gif_blocks(data):
        body = data[block.start : block.end]
        if block.name == b",":
            screen = data[: 13 + gif_palette_bytes(data[10])]
            return Bare(screen + control + body + b";", None)
        # A graphic control extension has 4 bytes and belongs to the next image.
        if body[1:3] == b"\xf9\x04" and len(body) == 8:
            control = body
    return None
