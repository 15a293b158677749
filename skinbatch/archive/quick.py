"""Decode ordinary JPEGs and PNGs with faster libraries than Pillow, to the same pixels."""

from __future__ import annotations

import imagecodecs
import numpy as np
import simplejpeg
from imagecodecs import PngError
from numpy.typing import NDArray
from PIL import Image

from skinbatch.archive.file_parts import png_chunks
from skinbatch.archive.formats import ImageFormat

_TEXTS = (b"tEXt", b"zTXt")
# Chunks that change no pixel and hold no orientation. Those of colour spaces are ignored here, as
# in all formats.
_PLAIN = {
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"bKGD", b"cHRM", b"gAMA", b"hIST", b"iCCP", b"pHYs",
    b"sBIT", b"sPLT", b"sRGB", b"tIME", *_TEXTS,
}  # fmt: skip
# The keyword under which some programs keep EXIF data, and so the orientation, as text.
_EXIF_AS_TEXT = b"Raw profile type"
_BITS_AND_COLOUR = slice(24, 26)
_RGB_OF_8_BITS = bytes([8, 2])


def quick_pixels(data: bytes, kind: ImageFormat, image: Image.Image) -> NDArray[np.uint8] | None:
    """Return the pixels as they are stored, (H, W, 3) uint8 RGB; None leaves them to Pillow.

    Pillow then also tells what is wrong with the file. Threads may call this at the same time: both
    libraries release the interpreter lock.

    Args:
        data: the file.
        kind: its format.
        image: the file as Pillow has opened it, without its pixels.
    """
    try:
        if kind == "jpeg" and image.mode in ("RGB", "L"):
            rgb = simplejpeg.decode_jpeg(data, colorspace="RGB")
        elif kind == "png" and _is_ordinary_png(data):
            rgb = imagecodecs.png_decode(data)
        else:
            return None
    except (ValueError, PngError):
        return None

    shape = (image.height, image.width, 3)
    return rgb if rgb.shape == shape and rgb.dtype == np.uint8 else None


def _is_ordinary_png(data: bytes) -> bool:
    """Return whether a PNG has RGB pixels of 8 bits, and no transparency, animation or orientation."""
    if data[_BITS_AND_COLOUR] != _RGB_OF_8_BITS:
        return False
    for chunk in png_chunks(data):
        if chunk.name not in _PLAIN:
            return False
        if chunk.name in _TEXTS and data.startswith(_EXIF_AS_TEXT, chunk.start + 8):
            return False
    return True
