"""Make photos with sound pixels and unsound files, each beside a clean file with the same pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from PIL import Image, TiffImagePlugin

from tests.pictures import encoded, picture
from tests.unit.archive.test_decode import HEIC

PICTURE = picture(1)
WRONG = b"\1\2\3\4"


class Sound(NamedTuple):
    """Hold a pair of files. what: what is odd about `odd`, which shows the same picture as `clean`."""

    what: str
    clean: bytes
    odd: bytes


def sound_files() -> Iterator[Sound]:
    yield from jpegs()
    yield from pngs()
    yield from webps()
    yield from gifs()
    yield from tiffs()
    yield from others()


# --- JPEG ---


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def header_segments(data: bytes) -> tuple[list[tuple[int, int, int]], int]:
    """Return (marker, start, end) of the segments before the first scan, and where the scan begins."""
    at, found = 2, []
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        found.append((data[at + 1], at, end))
        at = end
    return found, at


def inserted(data: bytes, marker: int, extra: bytes) -> bytes:
    """Return the file with `extra` before the first segment with this marker."""
    segments, scan = header_segments(data)
    at = next((start for found, start, _ in segments if found == marker), scan)
    return data[:at] + extra + data[at:]


STRAYS = {
    "a zero": b"\0",
    "text": b"hello world",
    "FF 00": b"\xff\0",
    "several FF 00": b"\xff\0" * 5 + b"ab",
    "fill bytes": b"\xff\xff\xff",
    "a restart marker": b"\xff\xd0",
    "a TEM marker": b"\xff\x01",
    "many zeros": bytes(300_000),
}
SEGMENTS = {
    "a short JFIF": (0xE0, b"JFIF\0"),
    "an odd JFIF": (0xE0, b"JFIF\0\1\7\3\0\0\0\0\5\5"),
    "a JFIF extension": (0xE0, b"JFXX\0\x13abc"),
    "an empty EXIF": (0xE1, b"Exif\0\0"),
    "EXIF garbage": (0xE1, b"Exif\0\0MM\0*\0\0\0\xffxx"),
    "EXIF of no type": (
        0xE1,
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x63\0\1\0\0\0\6\0\0\0\0\0\0\0",
    ),
    "a large XMP": (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<x" * 30_000),
    "a thermal camera's segment": (0xE1, b"FLIR\0\1\0\0"),
    "a short profile": (0xE2, b"ICC_PROFILE\0"),
    "a profile that is none": (0xE2, b"ICC_PROFILE\0\1\1garbage"),
    "a profile of which parts are missing": (0xE2, b"ICC_PROFILE\0\5\2" + bytes(50)),
    "a multi-picture index that is none": (0xE2, b"MPF\0garbage"),
    "Photoshop resources that are none": (0xED, b"Photoshop 3.0\x008BIM\x04\x04\x05a"),
    "a short Adobe segment": (0xEE, b"Adobe"),
    "the largest segment": (0xE5, bytes(65_533)),
    "markers within a comment": (0xFE, b"\xff\xd9\xff\xd8" * 100),
    "markers within a segment": (0xEF, b"\xff\xd9\xff\xda" * 9),
}


def jpegs() -> Iterator[Sound]:
    plain = encoded(PICTURE, "JPEG", quality=95)
    progressive = encoded(PICTURE, "JPEG", quality=95, progressive=True)
    cmyk = encoded(PICTURE.convert("CMYK"), "JPEG", quality=95)
    grey = encoded(PICTURE.convert("L"), "JPEG", quality=95)
    kinds = {
        "jpeg": (plain, 0xC0),
        "progressive": (progressive, 0xC2),
        "CMYK": (cmyk, 0xC0),
        "grey": (grey, 0xC0),
    }

    for kind, (clean, frame) in kinds.items():
        for what, strays in STRAYS.items():
            for where, marker in (
                ("tables", 0xDB),
                ("frame", frame),
                ("codes", 0xC4),
                ("scan", 0xDA),
            ):
                yield Sound(
                    f"{kind}: {what} before the {where}", clean, inserted(clean, marker, strays)
                )
        yield Sound(f"{kind}: a zero behind the first marker", clean, clean[:2] + b"\0" + clean[2:])
        yield Sound(
            f"{kind}: bytes behind the end", clean, clean + b"trailer\xff\xd8\xff" + bytes(1000)
        )
        yield Sound(f"{kind}: without its end", clean, clean[:-2])
        yield Sound(f"{kind}: half of its end", clean, clean[:-1])
        yield Sound(
            f"{kind}: without its end and a zero before the tables",
            clean,
            inserted(clean, 0xDB, b"\0")[:-2],
        )
        for what, (marker, body) in SEGMENTS.items():
            yield Sound(f"{kind}: {what}", clean, inserted(clean, 0xDB, segment(marker, body)))
        many = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(60_000)) * 30
        yield Sound(f"{kind}: megabytes of XMP", clean, inserted(clean, 0xDB, many))

    segments, scan = header_segments(plain)
    for what, marker in (("without JFIF", 0xE0), ("of a video, without code tables", 0xC4)):
        kept = b"".join(plain[start:end] for found, start, end in segments if found != marker)
        yield Sound(f"jpeg: {what}", plain, plain[:2] + kept + plain[scan:])


# --- PNG ---


def chunk(name: bytes, body: bytes, crc: bytes | None = None) -> bytes:
    stated = struct.pack(">I", zlib.crc32(name + body)) if crc is None else crc
    return struct.pack(">I", len(body)) + name + body + stated


def packed(size: int) -> bytes:
    return zlib.compress(bytes(size))


CHUNKS = {
    "a text with a wrong checksum": chunk(b"tEXt", b"a\0b", WRONG),
    "a text without a name": chunk(b"tEXt", b"abc"),
    "an empty text": chunk(b"tEXt", b""),
    "a text of megabytes": chunk(b"tEXt", b"a\0" + b"x" * (2 << 20)),
    "80 MB of texts": chunk(b"tEXt", b"a\0" + b"x" * 900_000) * 80,
    "a packed text that is none": chunk(b"zTXt", b"a\0\0garbage"),
    "a text packed in an unknown way": chunk(b"zTXt", b"a\0\7garbage"),
    "a text that unpacks to megabytes": chunk(b"zTXt", b"a\0\0" + packed(3 << 20)),
    "XMP of megabytes": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<x>" * (1 << 20)),
    "packed XMP of megabytes": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed(3 << 20)),
    "a text that is no UTF-8": chunk(b"iTXt", b"a\0\0\0\xff\0\xff\0\xff\xfe"),
    "a profile that is none": chunk(b"iCCP", b"a\0\0garbage"),
    "an empty profile": chunk(b"iCCP", b""),
    "a profile packed in an unknown way": chunk(b"iCCP", b"a\0\7" + packed(9)),
    "a profile of megabytes": chunk(b"iCCP", b"a\0\0" + packed(5 << 20)),
    "a profile with a wrong checksum": chunk(b"iCCP", b"a\0\0" + packed(9), WRONG),
    "EXIF that is none": chunk(b"eXIf", b"garbage"),
    "EXIF with a wrong checksum": chunk(
        b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\3\0\1\0\0\0\6\0\0\0\0\0\0\0", WRONG
    ),
    "an unknown chunk": chunk(b"prIv", b"abc"),
    "an unknown chunk with a wrong checksum": chunk(b"prIv", b"abc", WRONG),
    **{
        f"{name.decode()} of no bytes": chunk(name, b"")
        for name in (b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"bKGD", b"sBIT")
    },
    "sRGB out of range": chunk(b"sRGB", b"\x09"),
    **{
        f"{name.decode()} of no bytes": chunk(name, b"")
        for name in (b"acTL", b"fcTL", b"fdAT", b"cICP", b"tIME")
    },
    "an animation of no frames": chunk(b"acTL", bytes(8)),
    "an animation that is none": chunk(
        b"fcTL", struct.pack(">IIIIIHHBB", 7, 99, 99, 5, 5, 0, 0, 0, 0)
    ),
    "an animation with a wrong checksum": chunk(b"acTL", struct.pack(">II", 1, 0), WRONG),
    "transparency with a wrong checksum": chunk(b"tRNS", b"\0\1", WRONG),
}


def pngs() -> Iterator[Sound]:
    kinds = {
        "png": encoded(PICTURE, "PNG"),
        "grey png": encoded(PICTURE.convert("L"), "PNG"),
        "palette png": encoded(PICTURE.quantize(32), "PNG"),
    }
    for kind, clean in kinds.items():
        picture_at, end = clean.index(b"IDAT") - 4, clean.index(b"IEND") - 4
        stream = clean[picture_at + 8 : end - 4]
        before, rows = clean[:picture_at], zlib.decompress(stream)
        finish = chunk(b"IEND", b"")
        for what, extra in CHUNKS.items():
            yield Sound(f"{kind}: {what}", clean, clean[:33] + extra + clean[33:])
            # Pillow checks no checksums after the picture, so it would accept these two.
            if extra[4:8] not in (b"eXIf", b"tRNS"):
                yield Sound(
                    f"{kind}: {what} behind the picture", clean, clean[:end] + extra + clean[end:]
                )
        yield Sound(f"{kind}: an end with a wrong checksum", clean, clean[:-4] + WRONG)
        yield Sound(
            f"{kind}: an end that holds something", clean, clean[:end] + chunk(b"IEND", b"abc")
        )
        yield Sound(f"{kind}: bytes before the end", clean, clean[:end] + b"\0\0\0" + clean[end:])
        yield Sound(f"{kind}: bytes behind the end", clean, clean + b"junk" * 1000)
        yield Sound(f"{kind}: without its end", clean, clean[:end])
        yield Sound(
            f"{kind}: something else instead of its end",
            clean,
            clean[:end] + b"<html>not found</html>",
        )
        yield Sound(
            f"{kind}: a cut text behind the picture",
            clean,
            clean[:end] + chunk(b"tEXt", b"a\0" + bytes(99))[:50],
        )
        yield Sound(f"{kind}: without the checksum of its picture", clean, clean[: end - 4])
        pieces = b"".join(chunk(b"IDAT", stream[n : n + 7]) for n in range(0, len(stream), 7))
        yield Sound(f"{kind}: a picture in many pieces", clean, before + pieces + finish)
        yield Sound(f"{kind}: a picture in many pieces without its end", clean, before + pieces)
        more = {
            "a stream with a wrong checksum": stream[:-4] + WRONG,
            "bytes behind the stream": stream + b"tail",
            "more rows than are shown": zlib.compress(rows + bytes(500)),
        }
        for what, other in more.items():
            yield Sound(f"{kind}: {what}", clean, before + chunk(b"IDAT", other) + finish)

    clean = kinds["png"]
    yield Sound(
        "png: a palette with a wrong checksum",
        clean,
        clean[:33] + chunk(b"PLTE", b"abc", WRONG) + clean[33:],
    )


# --- WebP, GIF, TIFF and the others ---


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(
        n + struct.pack("<I", len(d)) + d + b"\0" * (len(d) % 2) for n, d in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webps() -> Iterator[Sound]:
    for kind, options in (("webp", {"quality": 90}), ("lossless webp", {"lossless": True})):
        clean = encoded(PICTURE, "WEBP", **options)
        picture_chunk = (clean[12:16], clean[20 : 20 + int.from_bytes(clean[16:20], "little")])

        def extended(flags: int) -> tuple[bytes, bytes]:
            width, height = (struct.pack("<I", side - 1)[:3] for side in PICTURE.size)
            return b"VP8X", bytes([flags, 0, 0, 0]) + width + height

        yield Sound(f"{kind}: bytes behind the end", clean, clean + b"junk" * 100)
        for what, odd in {
            "EXIF that is none": riff(extended(8), picture_chunk, (b"EXIF", b"garbage")),
            "EXIF announced and missing": riff(extended(8), picture_chunk),
            "a profile that is none": riff(extended(32), (b"ICCP", b"garbage"), picture_chunk),
            "a profile announced and missing": riff(extended(32), picture_chunk),
            "XMP that is none": riff(extended(4), picture_chunk, (b"XMP ", b"\xff\xfe<")),
            "unknown chunks": riff(extended(0), (b"zzzz", b"abc"), picture_chunk, (b"yyyy", b"")),
            "an unknown chunk of a simple file": riff(picture_chunk, (b"yyyy", b"abc")),
        }.items():
            yield Sound(f"{kind}: {what}", clean, odd)
        cut = riff(extended(8), picture_chunk, (b"EXIF", bytes(100)))[:-50]
        yield Sound(f"{kind}: cut within its EXIF", clean, cut)


def gifs() -> Iterator[Sound]:
    clean = encoded(PICTURE, "GIF")
    first = 13 + (3 << ((clean[10] & 7) + 1))
    blocks = {
        "a comment": b"!\xfe\3abc\0",
        "a short application block": b"!\xff\1a\0",
        "a short loop": b"!\xff\x0bNETSCAPE2.0\1\1\0",
        "a profile that is none": b"!\xff\x0bICCRGBG1012\3abc\0",
        "an unknown extension": b"!\x99\3abc\0",
        "a short control block": b"!\xf9\1\0\0",
        "zeros between blocks": bytes(5),
    }
    for what, extra in blocks.items():
        yield Sound(f"gif: {what}", clean, clean[:first] + extra + clean[first:])
        yield Sound(f"gif: {what} behind the picture", clean, clean[:-1] + extra + clean[-1:])
    yield Sound("gif: text before the first block", clean, clean[:first] + b"hello" + clean[first:])
    yield Sound("gif: bytes behind the end", clean, clean + b"junk")
    for what, end in (
        ("text between the picture and the end", b"hello;"),
        ("text instead of an end", b"<html>not found</html>"),
        ("a cut comment behind the picture", b"!\xfe\x20abc"),
        ("no end", b""),
    ):
        yield Sound(f"gif: {what}", clean, clean[:-1] + end)
    yield Sound("gif: no end of its picture", clean, clean[:-2])
    frames = encoded(PICTURE, "GIF", save_all=True, append_images=[picture(2), picture(3)])
    yield Sound("gif: cut in its second frame", frames, frames[: frames.rindex(b"!\xf9") - 500])
    interlaced = encoded(PICTURE, "GIF", interlace=True)
    yield Sound("gif: interlaced, without its end", interlaced, interlaced[:-1])


def tiffs() -> Iterator[Sound]:
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        options: dict[str, Any] = {} if compression is None else {"compression": compression}
        clean = encoded(PICTURE, "TIFF", **options)
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags.tagtype[65000] = 2
        tags[65000] = "x" * 5000
        private = encoded(PICTURE, "TIFF", tiffinfo=tags, **options)
        at = private.index(struct.pack("<HH", 65000, 2))
        kind = f"{compression or 'plain'} tiff"
        yield Sound(f"{kind}: bytes behind the end", clean, clean + b"junk" * 50)
        yield Sound(
            f"{kind}: a profile that is none",
            clean,
            encoded(PICTURE, "TIFF", icc_profile=b"garbage", **options),
        )
        for what, place, value in (
            ("a private tag that lies elsewhere", at + 8, struct.pack("<I", 1 << 30)),
            ("a private tag of no type", at + 2, struct.pack("<H", 99)),
            ("a private tag without end", at + 4, struct.pack("<I", (1 << 32) - 1)),
        ):
            yield Sound(
                f"{kind}: {what}", clean, private[:place] + value + private[place + len(value) :]
            )

    clean = encoded(PICTURE, "TIFF")
    at = clean.index(struct.pack("<HH", 279, 4)) + 8
    size = struct.unpack_from("<I", clean, at)[0]
    for what, stated in (("no bytes", 0), ("more bytes than there are", size + 5)):
        odd = clean[:at] + struct.pack("<I", stated) + clean[at + 4 :]
        yield Sound(f"plain tiff: a strip that says to be of {what}", clean, odd)


def others() -> Iterator[Sound]:
    clean = encoded(PICTURE, "BMP")
    yield Sound("bmp: bytes behind the end", clean, clean + b"junk" * 10)
    for what, place, size in (("file", 2, 4), ("picture", 34, 4)):
        for stated in (b"\0", b"\xff"):
            odd = clean[:place] + stated * size + clean[place + size :]
            yield Sound(f"bmp: a wrong size of the {what} ({stated!r})", clean, odd)

    for kind, clean in (("avif", encoded(PICTURE, "AVIF", quality=90)), ("heic", HEIC)):
        media = clean.rindex(b"mdat") - 4
        yield Sound(f"{kind}: bytes behind the end", clean, clean + b"junk" * 10)
        yield Sound(f"{kind}: few bytes behind the end", clean, clean + b"abc")
        yield Sound(f"{kind}: zeros behind the end", clean, clean + bytes(1000))
        yield Sound(
            f"{kind}: a private box", clean, clean + struct.pack(">I", 28) + b"uuid" + bytes(20)
        )
        yield Sound(
            f"{kind}: data to the end of the file",
            clean,
            clean[:media] + bytes(4) + clean[media + 4 :],
        )


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
