"""Read the size of a photo as it is displayed, from its header alone."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from PIL import ExifTags, Image

from skinbatch.errors import UsageError

_OBJECT = re.compile(r"<\S+ object at 0x[0-9a-f]+>")
_SIDEWAYS = (5, 6, 7, 8)
# Pillow raises these for a photo that is damaged or too large; SyntaxError for a chunk of a PNG.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
# Share by which width / height may differ, because sizes are rounded.
SAME_SHAPE = 0.01


def displayed_size(photo: Path) -> tuple[int, int]:
    """Return width and height in pixels, turned as EXIF says.

    Raises UsageError naming a file that is no readable photo.
    """
    try:
        with Image.open(photo) as image:
            return turned_size(image)
    except UNREADABLE as e:
        raise UsageError(
            f"{photo}: its size cannot be read: {plain(e)}; replace the photo or remove it"
        ) from None


def plain(e: Exception) -> str:
    """Return Pillow's message without the address of the object."""
    return _OBJECT.sub("it", str(e))


def turned_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of an open photo as displayed, without decoding its pixels."""
    width, height = image.size
    return (
        (height, width)
        if image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
        else (width, height)
    )


def same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether one size (width, height) is the other, scaled."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= SAME_SHAPE
