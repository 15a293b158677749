"""Make hostile photos: attacks on a decoder, its memory and its time limit."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from tests.faces import face
from tests.pictures import encoded, picture
from tests.unit.archive.test_decode import HEIC

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpg": ("JPEG", {"quality": 90}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 90}),
    "avif": ("AVIF", {"quality": 90}),
    "tiff": ("TIFF", {}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
}
FINE = "ok"
CUT = "truncated|corrupt"
DAMAGED = "corrupt|truncated|unsupported"
ANY = "ok|corrupt|truncated|unsupported|too_large"


@dataclass(frozen=True)
class Hostile:
    """Describe one hostile file and the rows that it must give.

    path: relative to the source; bytes that are not UTF-8 are spelled as Python does. rows: end of
    the image_id after the file's own name ("" for a photo) -> the statuses that are allowed,
    separated by |; empty if nothing in the file is a photo; `*` allows any rows. error: a text that
    the errors of all rows that are not ok must contain.
    """

    path: str
    data: bytes
    rows: Mapping[str, str]
    error: str = ""


def photo(name: str, data: bytes, statuses: str, error: str = "") -> Hostile:
    return Hostile(f"photos/{name}", data, {"": statuses}, error)


def sound() -> dict[str, bytes]:
    """Return a small photo of every supported format, by its extension."""
    files = {
        ending: encoded(picture(1), form, **options) for ending, (form, options) in FORMS.items()
    }
    return files | {"heic": HEIC}


def hostile_photos() -> Iterator[Hostile]:
    yield from cut_off()
    yield from bombs()
    yield from wrong_lengths()
    yield from absurd_exif()
    yield from odd_names()


def heavy_photos() -> Iterator[Hostile]:
    """Return photos that take seconds to make or to check."""
    yield photo("large-and-blank.png", png(6000, 6000, 1, 0, zeros(6000 * 751)), FINE)
    yield photo("scans.jpg", many_scans(2000), "too_large", "scans")
    yield photo(
        "large-scans.jpg", many_scans(180, side=10_000), "too_large", "scans of 100,000,000 pixels"
    )
    yield photo("scans-within.jpg", many_scans(100), FINE)
    packed = zeros(5000 * 5000)
    yield photo(
        "bomb-within.tiff",
        tiff(tiff_tags(5000, 5000, (122, len(packed)), t259=(3, 1, 8)), packed),
        FINE,
    )
    yield photo("padding.jpg", b"\xff\xd8" + b"\xff" * 2_000_000, DAMAGED)
    yield photo(
        "many-chunks.png", b"\x89PNG\r\n\x1a\n" + png_chunk(b"teXt", b"") * 200_000, DAMAGED
    )
    yield photo("directory-full.tiff", b"II*\x00\x08\0\0\0\xff\xff" + bytes(12 * 65_535), DAMAGED)


def cut_off() -> Iterator[Hostile]:
    """Return every format, cut in its header, in its middle and just before its end."""
    for ending, data in sound().items():
        for share in (0.05, 0.3, 0.6, 0.9):
            yield photo(f"cut-{share}.{ending}", data[: max(4, int(share * len(data)))], CUT)
        # Nothing of the picture is in the last byte of these.
        yield photo(
            f"last-byte.{ending}", data[:-1], FINE if ending in ("jpg", "png", "gif") else CUT
        )
    yield photo("nothing.jpg", b"", "empty")
    yield photo("two-bytes.jpg", b"\xff\xd8", CUT)


def png_chunk(name: bytes, data: bytes, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return struct.pack(">I", size) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, bits: int, colour: int, idat: bytes, *more: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = (png_chunk(b"IHDR", header), *more, png_chunk(b"IDAT", idat), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def zeros(count: int) -> bytes:
    """Return deflated zeros, without holding them in memory."""
    packer, parts = zlib.compressobj(9), []
    while count > 0:
        parts.append(packer.compress(bytes(min(count, 1 << 20))))
        count -= 1 << 20
    return b"".join([*parts, packer.flush()])


def tiff(
    entries: Mapping[int, tuple[int, int, int]], after: bytes = b"", next_directory: int = 0
) -> bytes:
    """Return a TIFF with one directory at byte 8: tag -> type, count, value or offset.

    `after` begins behind the directory.
    """
    table = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()))
    return (
        b"II*\x00\x08\0\0\0"
        + struct.pack("<H", len(entries))
        + table
        + struct.pack("<I", next_directory)
        + after
    )


def tiff_tags(
    width: int, height: int, strip: tuple[int, int], **other: tuple[int, int, int]
) -> dict[int, tuple[int, int, int]]:
    """Return the tags of a TIFF. strip: offset and number of bytes. other: tags named `t<number>`."""
    tags = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        277: (3, 1, 1),
    }
    tags |= {273: (4, 1, strip[0]), 278: (4, 1, height), 279: (4, 1, strip[1])}
    return tags | {int(name[1:]): entry for name, entry in other.items()}


def many_scans(scans: int, side: int = 4096) -> bytes:
    """Return a progressive square JPEG that repeats its last scan, each of which costs a pass over the photo."""
    whole = encoded(
        Image.new("RGB", (side, side), (120, 90, 80)), "JPEG", quality=50, progressive=True
    )
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * scans + b"\xff\xd9"


def bombs() -> Iterator[Hostile]:
    """Return small files that unpack to large photos.

    Those within the limits must be decoded; the others must be refused by their header.
    """
    yield photo(
        "bomb-header.png",
        png(60_000, 60_000, 8, 2, zlib.compress(b"\0" * 99)),
        "too_large",
        "max_pixels",
    )
    yield photo(
        "bomb-text.png",
        png(8, 8, 8, 0, zlib.compress(bytes(72)), png_chunk(b"zTXt", b"a\0\0" + zeros(100 << 20))),
        ANY,
    )
    yield photo(
        "bomb-profile.png",
        png(8, 8, 8, 0, zlib.compress(bytes(72)), png_chunk(b"iCCP", b"a\0\0" + zeros(100 << 20))),
        ANY,
    )
    yield photo("bomb-data.png", png(8, 8, 8, 0, zeros(100 << 20)), ANY)
    yield photo("promises-more.png", png(6000, 6000, 8, 2, zlib.compress(b"\0" * 99)), CUT)
    yield photo("bomb.jpg", resized_jpeg(65_500, 65_500), "too_large", "max_pixels")
    yield photo(
        "bomb.gif",
        patched(sound()["gif"], 6, struct.pack("<HH", 20_000, 20_000)),
        "too_large",
        "max_pixels",
    )
    yield photo(
        "bomb.bmp",
        patched(sound()["bmp"], 18, struct.pack("<ii", 1 << 20, 1 << 20)),
        "too_large",
        "max_pixels",
    )
    yield photo(
        "bomb.webp",
        b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\x3f" * 2,
        ANY.removeprefix("ok|"),
    )
    yield photo(
        "bomb.heic",
        HEIC.replace(struct.pack(">II", 64, 64), struct.pack(">II", 65_535, 65_535)),
        ANY,
    )
    yield photo(
        "bomb-header.tiff",
        tiff(tiff_tags(100_000, 100_000, (122, 99), t259=(3, 1, 8)), bytes(99)),
        "too_large",
    )
    yield photo(
        "bomb-samples.tiff",
        tiff(tiff_tags(8, 8, (122, 64), t277=(3, 1, 65_535)), bytes(64)),
        DAMAGED,
    )
    yield photo(
        "bomb-count.tiff",
        tiff(tiff_tags(8, 8, (122, 64), t270=(2, (1 << 32) - 1, 8)), bytes(64)),
        ANY,
    )
    yield photo(
        "bomb-strips.tiff",
        tiff(tiff_tags(8, 8, (122, 64), t273=(4, 1 << 30, 8)), bytes(64)),
        DAMAGED,
    )


def resized_jpeg(width: int, height: int) -> bytes:
    """Return a small photo whose header gives another size."""
    data = bytearray(sound()["jpg"])
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def wrong_lengths() -> Iterator[Hostile]:
    """Return files whose lengths and offsets lead out of the file, backwards, or nowhere."""
    files = sound()
    jpg, webp, heic, bmp, avif = (files[name] for name in ("jpg", "webp", "heic", "bmp", "avif"))
    yield photo("length-0.jpg", patched(jpg, 4, b"\0\0"), DAMAGED)
    yield photo("length-1.jpg", patched(jpg, 4, b"\0\1"), DAMAGED)
    yield photo("length-65535.jpg", patched(jpg, 4, b"\xff\xff"), DAMAGED)
    yield photo("taller.jpg", resized_jpeg(64, 30_000), ANY)
    yield photo("no-height.jpg", resized_jpeg(64, 0), DAMAGED)
    yield photo("length-max.png", patched(files["png"], 8, b"\xff\xff\xff\xff"), DAMAGED)
    yield photo("no-pixels.png", png(0, 0, 8, 2, b""), DAMAGED)
    yield photo("no-picture.png", b"\x89PNG\r\n\x1a\n" + png_chunk(b"IEND", b""), DAMAGED)
    yield photo("riff-0.webp", patched(webp, 4, bytes(4)), ANY)
    yield photo("riff-max.webp", patched(webp, 4, b"\xff\xff\xff\xff"), FINE)
    yield photo("box-0.heic", patched(heic, 28, bytes(4)), ANY)
    yield photo("box-1.heic", patched(heic, 28, b"\0\0\0\1"), DAMAGED)
    yield photo("box-max.avif", patched(avif, 0, b"\xff\xff\xff\xff"), DAMAGED)
    yield photo(
        "box-self.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0\0\0\x08meta" * 5000, DAMAGED
    )
    yield photo("offset.bmp", patched(bmp, 10, b"\xff\xff\xff\x7f"), DAMAGED)
    yield photo(
        "height-min.bmp", patched(bmp, 22, struct.pack("<i", -(1 << 31))), ANY.removeprefix("ok|")
    )
    yield photo("planes.bmp", patched(bmp, 26, b"\xff\xff\xff\xff"), DAMAGED)
    yield photo("loop.tiff", tiff(tiff_tags(8, 8, (122, 64)), bytes(64), next_directory=8), ANY)
    yield photo("strip-out.tiff", tiff(tiff_tags(8, 8, (1 << 31, 64)), bytes(64)), DAMAGED)
    yield photo("directory-out.tiff", b"II*\x00\xff\xff\xff\x7f", DAMAGED)
    yield photo("no-size.tiff", tiff(tiff_tags(0, 0, (122, 64)), bytes(64)), DAMAGED)
    yield photo("blocks.gif", files["gif"][:-1] + b"\x21\xfe\x01a\0" * 100_000 + b"\x3b", FINE)
    yield photo("text.jpg", b"<html><script>alert(1)</script>", "unsupported")
    yield photo("program.png", b"\x7fELF" + bytes(100), "unsupported")
    yield photo("shortcut.jpg", b"\xff\xd8\xff\xd9", DAMAGED)


def absurd_exif() -> Iterator[Hostile]:
    """Return photos with absurd EXIF, none of which is needed to show them."""
    nan = TiffImagePlugin.IFDRational(0, 0)
    for name, orientation in (
        ("99", 99),
        ("nan", nan),
        ("text", "upside down"),
        ("list", (6, 6, 6)),
    ):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        if not isinstance(orientation, int):
            tags.tagtype[274] = {"nan": 5, "text": 2, "list": 3}[name]
        tags[274] = orientation
        yield photo(
            f"orientation-{name}.jpg",
            encoded(picture(2), "JPEG", exif=b"Exif\0\0" + _tiff_bytes(tags)),
            FINE,
        )
    gps = TiffImagePlugin.ImageFileDirectory_v2()
    gps.tagtype[2] = 5
    gps[2] = (nan, nan, TiffImagePlugin.IFDRational(1 << 31, 1))
    yield photo(
        "gps-nan.jpg", encoded(picture(2), "JPEG", exif=b"Exif\0\0" + _tiff_bytes(gps)), FINE
    )
    yield photo(
        "exif-zeros.jpg", encoded(picture(2), "JPEG", exif=b"Exif\0\0" + bytes(60_000)), FINE
    )
    loop = tiff({34665: (4, 1, 8), 34853: (4, 1, 8), 274: (3, 1, 6)}, next_directory=8)
    yield photo("exif-loop.jpg", encoded(picture(2), "JPEG", exif=b"Exif\0\0" + loop), FINE)
    yield photo("exif-out.png", encoded(picture(2), "PNG", exif=b"II*\x00\xff\xff\xff\x7f"), FINE)
    yield photo(
        "exif-count.webp",
        encoded(picture(2), "WEBP", exif=tiff({274: (3, (1 << 32) - 1, 8)})),
        FINE,
    )
    values = np.array([[np.nan, np.inf], [-np.inf, 1e38]], np.float32)
    yield photo("nan.tiff", encoded_array(values), FINE)


def encoded_array(values: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values, "F").save(out, "TIFF")
    return out.getvalue()


def _tiff_bytes(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bytes:
    return b"II*\x00\x08\0\0\0" + tags.tobytes(8)


def odd_names() -> Iterator[Hostile]:
    """Return sound photos with odd names.

    Each must have a row under a name that a table can hold.
    """
    good = encoded(Image.fromarray(face(1, 1)), "PNG")
    names = (
        "line\nbreak.png", "tab\tand\rreturn.png", "quote'\"`$(touch x).png", "-rf.png", "%s%n%d.png", "back\\slash.png",
        "\u202egnp.exe.png", "nbsp\u00a0.png", "\udcff\udcfe.png", "a" * 246 + ".png", "é" * 120 + ".png", "nul\\x00.png",
        "#truncated.png", "CON.png", " .png", ",;.png", "\U000e0001.png", "*?[.png", "..png", "...png", "s3:\uff0f\uff0fb.png",
    )  # fmt: skip
    for name in names:
        yield photo(name, good, FINE)
    yield Hostile("/".join(["d"] * 1200 + ["deep.png"]), good, {"": FINE})
