"""Decode the bytes of one photo to pixels, or raise with the reason that goes into its row."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pi_heif
from numpy.typing import NDArray
from PIL import ExifTags, Image

from skinbatch.archive.bare import Bare, bare, has_strays
from skinbatch.archive.endings import is_whole
from skinbatch.archive.file_parts import CutError, DamagedError
from skinbatch.archive.formats import ImageFormat, image_format, is_cut_signature
from skinbatch.archive.integrity import TooManyScansError, check, check_strips
from skinbatch.archive.quick import quick_pixels
from skinbatch.config import DecodeSettings
from skinbatch.errors import memory_is_full
from skinbatch.redact import without_addresses
from skinbatch.types import Status

pi_heif.register_heif_opener(thumbnails=False, decode_threads=1)
# max_pixels decides before decoding, and gives a status. Pillow's own limit holds for the whole
# process, not for one call. A program that imports this module and opens images of its own can set
# MAX_IMAGE_PIXELS again; both limits then hold here.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")  # a bad photo gets a row instead
logging.getLogger("PIL").addHandler(logging.NullHandler())

Pixels = NDArray[np.uint8]
# From stored to displayed pixels, by EXIF orientation.
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
# TIFF tags.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES = 273, 277, 278, 279
_PLANES, _TILES, _TILE_BYTES = 284, 324, 325


@dataclass(frozen=True, slots=True)
class Photo:
    """Hold one photo as it is displayed.

    rgb: (H, W, 3) uint8, contiguous, EXIF orientation applied.
    """

    rgb: NDArray[np.uint8]

    @property
    def width(self) -> int:
        return int(self.rgb.shape[1])

    @property
    def height(self) -> int:
        return int(self.rgb.shape[0])


class PhotoError(Exception):
    """Report a photo that has no pixels.

    status: as in the column `status`. The text goes into the column `error`.
    """

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


class MemoryFull(PhotoError):
    """Report that there was not enough memory for a photo's pixels.

    Other photos that were decoded at the same time may be the cause.
    """

    def __init__(self, message: str) -> None:
        super().__init__(Status.TOO_LARGE, message)


def decode(data: bytes, settings: DecodeSettings, name: str) -> Photo:
    """Return the pixels of a JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP or GIF (its first frame).

    The content decides the format. Transparent pixels become white, as in viewers. Values of 12 and
    16 bits are scaled by their full range. Floats are scaled by 1, 255 or 65,535, the first of
    these that no value exceeds, and otherwise from their lowest to their highest value.

    Raises PhotoError, or MemoryFull if the memory is not sufficient. Threads may call this at the
    same time: the decoders release the interpreter lock.
    """
    if not data:
        raise PhotoError(Status.EMPTY, f"{name}: zero bytes")
    if len(data) > settings.max_image_bytes:
        raise PhotoError(
            Status.TOO_LARGE,
            f"{name}: {len(data):,} bytes, over max_image_bytes ({settings.max_image_bytes:,}); raise it in [decode]",
        )
    kind = _format(data)
    if kind is None:
        if is_cut_signature(data):
            raise PhotoError(Status.TRUNCATED, f"{name}: ends after {len(data)} bytes")
        raise PhotoError(
            Status.UNSUPPORTED,
            f"{name}: begins with {data[:8]!r}, which is not a supported image format",
        )
    with _named(kind, name):
        return _decode(data, kind, settings.max_pixels, name)


def decode_image(image: Image.Image, settings: DecodeSettings, name: str) -> Photo:
    """Return the pixels of an image that Pillow has opened or made, in any mode, like `decode`.

    Raises PhotoError, also for errors that Pillow finds while it reads the file's pixels.
    """
    with _named("image", name):
        _check_size(image, settings.max_pixels, name)
        return Photo(displayed(image))


@contextmanager
def _named(kind: str, name: str) -> Iterator[None]:
    """Turn any exception from within the context into a PhotoError that names the photo."""
    try:
        yield
    except PhotoError:
        raise
    except TooManyScansError as e:
        raise PhotoError(Status.TOO_LARGE, f"{name}: {kind} of {e}") from None
    except CutError as e:
        raise PhotoError(Status.TRUNCATED, f"{name}: truncated {kind}: {e}") from None
    except EOFError as e:
        raise PhotoError(Status.TRUNCATED, f"{name}: truncated {kind}: {e}") from e
    # Decoders raise anything on hostile bytes; each is a fact about this photo.
    except Exception as e:
        if memory_is_full(e):
            raise MemoryFull(f"{name}: does not fit in memory; lower max_pixels in [decode]") from e
        cut = "truncated" in str(e).lower()
        status = Status.TRUNCATED if cut else Status.CORRUPT
        raise PhotoError(status, f"{name}: cannot decode this {kind}: {_reason(e)}") from e


def expected_bytes(data: bytes, settings: DecodeSettings) -> int:
    """Return how many bytes of pixels `decode` will return, from the photo's header.

    Returns 0 for photos that `decode` refuses.
    """
    kind = _format(data) if len(data) <= settings.max_image_bytes else None
    if kind is None:
        return 0
    try:
        pixels = _header_pixels(data, kind)
    except Exception:  # decoders raise anything on hostile bytes; `decode` reports it
        return 0
    return 3 * pixels if pixels <= settings.max_pixels else 0


def _header_pixels(data: bytes, kind: ImageFormat) -> int:
    if not has_strays(data, kind):
        try:
            return _pixels_of_header(data, kind)
        except Exception:  # decoders raise anything; the picture itself may be intact
            if (stripped := bare(data, kind)) is None:
                raise
    else:
        stripped = bare(data, kind)
        assert stripped is not None, "has_strays has read its segments"
    return _pixels_of_header(stripped.data, kind)


def _pixels_of_header(data: bytes, kind: ImageFormat) -> int:
    with Image.open(io.BytesIO(data), formats=(kind,)) as image:
        return image.width * image.height


def _format(data: bytes) -> ImageFormat | None:
    """Return the format of a file; a JPEG's also if stray bytes follow its first marker."""
    kind = image_format(data)
    if kind is None and data.startswith(b"\xff\xd8"):
        try:
            check(data, "jpeg")
        except (CutError, DamagedError, TooManyScansError):
            return None
        return "jpeg"
    return kind


def _reason(error: Exception) -> str:
    """Return a decoder's error message without the parts that differ from run to run."""
    text = without_addresses(str(error)).replace(" <_io.BytesIO object>", "")
    return text or type(error).__name__


def _decode(data: bytes, kind: ImageFormat, max_pixels: int, name: str) -> Photo:
    try:
        check(data, kind)
    except (CutError, DamagedError) as damage:
        return _despite(damage, data, kind, max_pixels, name)

    # Pillow skips stray bytes one by one, and fails on chunks that are not pixels.
    stripped = bare(data, kind) if has_strays(data, kind) else None
    if stripped is None:
        try:
            return _pixels(Bare(data, None), kind, max_pixels, name)
        except (PhotoError, CutError, DamagedError, MemoryError):
            raise
        except Exception:
            stripped = bare(data, kind)
            if stripped is None:
                raise
    return _pixels(stripped, kind, max_pixels, name)


def _pixels(file: Bare, kind: ImageFormat, max_pixels: int, name: str) -> Photo:
    with Image.open(io.BytesIO(file.data), formats=(kind,)) as image:
        _check_size(image, max_pixels, name)
        if kind == "tiff":
            _check_tiff(file.data, image)
        stored = quick_pixels(file.data, kind, image)
        if stored is not None:
            # Pillow would read the pixels of a PNG to look for tags, and this one has none.
            tagged = None if kind == "png" else image
            return Photo(_turned(stored, _orientation(tagged, file.exif)))
        return Photo(displayed(image, file.exif))


def _despite(
    damage: Exception, data: bytes, kind: ImageFormat, max_pixels: int, name: str
) -> Photo:
    """Return the pixels of a file that is damaged, if all of them are there; else raise the damage."""
    file = bare(data, kind) or Bare(data, None)
    try:
        image = Image.open(io.BytesIO(file.data), formats=(kind,))
    except Exception:
        # Damage in the file's structure is a better reason than "cannot identify".
        raise damage from None
    with image:
        _check_size(image, max_pixels, name)
        if not is_whole(data, file.data, kind):
            raise damage
        return Photo(displayed(image, file.exif))


def _check_size(image: Image.Image, max_pixels: int, name: str) -> None:
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise PhotoError(
            Status.TOO_LARGE,
            f"{name}: {image.width:,} x {image.height:,} pixels, over max_pixels ({max_pixels:,}); raise it in [decode]",
        )
    if not pixels:
        raise DamagedError("has no pixels")


def displayed(image: Image.Image, exif: bytes | None = None) -> NDArray[np.uint8]:
    """Return the pixels of an image as viewers show it.

    Args:
        image: opened or made by Pillow, in any mode.
        exif: gives the orientation if the image itself does not.

    Returns:
        (H, W, 3) uint8 RGB, contiguous, with the EXIF orientation applied and transparent pixels on
        white.
    """
    tags = getattr(image, "tag_v2", {})
    bits = int(tags.get(_BITS, (16,))[0])
    inverted = tags.get(_PHOTOMETRIC) == 0
    image.load()
    orientation = _orientation(image, exif)
    rgb = _rgb(image, bits, inverted)
    return _turned(np.asarray(rgb, dtype=np.uint8), orientation)


def _turned(stored: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return pixels as they are displayed, contiguous. orientation: of EXIF."""
    turn = _TURNS.get(orientation)
    return np.ascontiguousarray(stored if turn is None else turn(stored))


def _check_tiff(data: bytes, image: Image.Image) -> None:
    """Raise CutError if strips or tiles of a TIFF lie beyond the end of the file.

    For uncompressed pixels, only those bytes count that are read.
    """
    tags = getattr(image, "tag_v2", {})
    most = None
    if tags.get(_COMPRESSION, 1) == 1 and tags.get(_PLANES, 1) == 1:
        bits = sum(tags.get(_BITS, (1,))) * (
            tags.get(_SAMPLES, 1) if len(tags.get(_BITS, (1,))) == 1 else 1
        )
        # Use the stored size: Pillow's own is the displayed one.
        width, height = tags.get(_WIDTH, image.width), tags.get(_HEIGHT, image.height)
        most = (width * bits + 7) // 8 * min(tags.get(_STRIP_ROWS, height), height)
    check_strips(data, tags.get(_STRIPS), tags.get(_STRIP_BYTES), most)
    check_strips(data, tags.get(_TILES), tags.get(_TILE_BYTES))


def _orientation(image: Image.Image | None, exif: bytes | None) -> int:
    try:
        tags = Image.Exif() if image is None else image.getexif()
        if exif is not None:
            tags.load(exif)
        return int(tags.get(ExifTags.Base.Orientation, 1))
    except Exception:  # malformed EXIF: the photo is shown as it is stored, as viewers do
        return 1


def _rgb(image: Image.Image, bits: int, inverted: bool) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.float64) / (2 ** min(bits, 16) - 1)
        return _grey(1 - grey if inverted else grey)
    if image.mode in ("I", "F"):
        return _grey(_unit_range(np.asarray(image, dtype=np.float64)))
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _unit_range(values: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.where(np.isfinite(values), values, 0.0)
    low, high = float(values.min()), float(values.max())
    if low >= 0:
        for top in (1.0, 255.0, 65535.0):
            if high <= top:
                return values / top
    return (values - low) / (high - low or 1.0)


def _grey(unit: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.rint(unit.clip(0, 1) * 255).astype(np.uint8)).convert("RGB")
