"""Decide whether a picture is whole although its file lacks its end or is damaged behind the picture."""

from __future__ import annotations

import re
import struct
import zlib

import simplejpeg

from skinbatch.archive.file_parts import (
    GIF_END,
    JPEG_FRAMES,
    CutError,
    DamagedError,
    gif_blocks,
    gif_palette_bytes,
    jpeg_segments,
    png_chunks,
)
from skinbatch.archive.formats import ImageFormat
from skinbatch.archive.integrity import has_its_checksum, is_needed

# Frames whose data are not Huffman codes. libjpeg does not report the end of arithmetic codes.
_NOT_HUFFMAN = {0xC3, 0xC7, *range(0xC9, 0xD0)}
_SEQUENTIAL = {0xC0, 0xC1}
_ALL_COEFFICIENTS = frozenset(range(64))
# Markers within the picture's data, without stuffed zeros, fill bytes and restart markers.
_MARKER_BETWEEN_SCANS = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")

_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# First column, first row, and the steps between columns and rows of the passes of an interlaced PNG.
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)

# Most bytes of a GIF's picture whose codes are counted, which takes a few seconds.
_MOST_LZW_BYTES = 8 << 20
_MOST_LZW_BITS = 12


def is_whole(data: bytes, stripped: bytes, kind: ImageFormat) -> bool:
    """Return whether every pixel of a damaged file is there.

    Args:
        data: the photo's file.
        stripped: the same picture as `bare` writes it, with an end. Its pixels have been found to
            be within the limits.
    """
    try:
        if kind == "jpeg":
            return _has_all_scans(stripped) and _jpeg_data_is_whole(stripped)
        if kind == "png":
            return _chunks_match(data) and _has_all_rows(stripped)
        if kind == "gif":
            return _has_all_codes(data)
    except (CutError, DamagedError, IndexError, ValueError, struct.error, zlib.error):
        return False
    # `bare` finds only a complete picture in a WebP. Other formats have no end marker.
    return kind == "webp" and stripped is not data


def _has_all_scans(data: bytes) -> bool:
    """Return whether the scans of a JPEG give every bit of every coefficient.

    Without the last scans of a progressive JPEG, the picture is blurred or coarse.
    """
    missing: dict[int, frozenset[int]] = {}
    frame = at = 0
    for segment in jpeg_segments(data):
        at = segment.start
        if segment.name[0] in JPEG_FRAMES:
            frame = segment.name[0]
            components = data[at + 10 : at + 10 + 3 * data[at + 9] : 3]
            missing = dict.fromkeys(components, _ALL_COEFFICIENTS)
    if frame in _NOT_HUFFMAN or not missing:
        return False

    while (marker := _MARKER_BETWEEN_SCANS.search(data, at)) is not None and marker[1] != b"\xd9":
        at = marker.end()
        if marker[1] == b"\xda":
            count = data[at + 2]
            components = data[at + 3 : at + 3 + 2 * count : 2]
            first, last, bits = data[at + 3 + 2 * count : at + 6 + 2 * count]
            if frame in _SEQUENTIAL:
                first, last, bits = 0, 63, 0
            if bits & 15 == 0:
                for component in components:
                    missing[component] = missing.get(component, frozenset()) - {
                        *range(first, last + 1)
                    }
        at += int.from_bytes(data[at : at + 2])
    return not any(missing.values())


def _jpeg_data_is_whole(data: bytes) -> bool:
    """Return whether libjpeg decodes a JPEG without a warning, such as about data that end early."""
    colours = ("GRAY", "CMYK")
    for colour in colours:
        try:
            # The scale does not matter: every code is read.
            simplejpeg.decode_jpeg(
                data, colour, fastdct=True, min_height=1, min_width=1, min_factor=8, strict=True
            )
        except ValueError:
            continue
        return True
    return False


def _chunks_match(data: bytes) -> bool:
    """Return whether the complete chunks of a PNG that its picture needs match their checksums."""
    try:
        for chunk in png_chunks(data):
            if is_needed(data, chunk.name) and not has_its_checksum(data, chunk):
                return False
    except (CutError, DamagedError, struct.error):
        return True
    return True


def _has_all_rows(data: bytes) -> bool:
    """Return whether a PNG's picture unpacks to all of its rows."""
    missing = _row_bytes(data)
    # `bare` writes only one.
    chunk = next(chunk for chunk in png_chunks(data) if chunk.name == b"IDAT")

    # Without its header, as its checksum may be wrong.
    unpacker, packed = zlib.decompressobj(-15), data[chunk.start + 10 : chunk.end - 4]
    while missing > 0 and packed and not unpacker.eof:
        missing -= len(unpacker.decompress(packed, 1 << 20))
        packed = unpacker.unconsumed_tail
    return missing <= 0


def _row_bytes(data: bytes) -> int:
    """Return how many bytes the rows of a PNG have, with their filters."""
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    total = 0
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = len(range(left, width, across)), len(range(top, height, down))
        if columns:
            total += rows * (1 + (columns * bits * _PNG_CHANNELS[colour] + 7) // 8)
    return total


def _has_all_codes(data: bytes) -> bool:
    """Return whether the codes of a GIF's first image give its pixels, and end with the last one.

    If the lengths of its blocks are wrong, the codes are others and give another number.
    """
    image = next(block for block in gif_blocks(data + GIF_END) if block.name == b",")
    width, height = struct.unpack_from("<HH", data, image.start + 5)
    at = image.start + 10 + gif_palette_bytes(data[image.start + 9])
    bits = data[at]
    at += 1

    blocks = []
    while at < len(data) and data[at]:
        blocks.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    packed = b"".join(blocks)
    return (
        len(packed) <= _MOST_LZW_BYTES
        and _lzw_values(packed, bits, width * height) == width * height
    )


def _lzw_values(packed: bytes, bits: int, most: int) -> int:
    """Return how many values LZW codes give, up to the end code or the end of the data.

    Returns -1 for codes that are not defined, and stops once there are more than `most` values.
    """
    if bits >= _MOST_LZW_BITS:
        return -1

    clear, end = 1 << bits, (1 << bits) + 1
    lengths = [1] * (clear + 2)
    size, previous, total = bits + 1, 0, 0
    buffer = filled = 0
    for byte in packed:
        buffer |= byte << filled
        filled += 8
        while filled >= size:
            code = buffer & ((1 << size) - 1)
            buffer >>= size
            filled -= size

            if code == end:
                return total
            if code == clear:
                lengths = [1] * (clear + 2)
                size, previous = bits + 1, 0
                continue
            if code > len(lengths) or (code == len(lengths) and not previous):
                return -1
            length = lengths[code] if code < len(lengths) else previous + 1
            if previous and len(lengths) < 1 << _MOST_LZW_BITS:
                lengths.append(previous + 1)
                size = min(_MOST_LZW_BITS, len(lengths).bit_length())
            previous = length
            total += length
            if total > most:
                return total
    return total
