"""Test that sound pixels are `ok` whatever surrounds them, and that damaged pixels still are not."""

from __future__ import annotations

import io
import re
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skinbatch.archive.decode import PhotoError, decode, expected_bytes
from skinbatch.config import DecodeSettings
from skinbatch.types import Status
from tests.faces import face, jpeg, png, rows, write_tree
from tests.field import sound
from tests.field.in_process import score
from tests.pictures import encoded, picture
from tests.unit.archive.test_decode import files

SETTINGS = DecodeSettings()
FILES = {found.what: found for found in sound.sound_files()}


@pytest.mark.parametrize("what", FILES)
def test_what_surrounds_sound_pixels_condemns_no_photo(what: str) -> None:
    found = FILES[what]
    shown = decode(found.odd, SETTINGS, "x").rgb
    assert np.array_equal(shown, decode(found.clean, SETTINGS, "x").rgb)
    assert expected_bytes(found.odd, SETTINGS) == shown.nbytes


def test_the_orientation_survives_what_other_decoders_stumble_over() -> None:
    exif = sound.turned(6)
    photo = encoded(picture(3), "JPEG", quality=95, exif=exif)
    image = encoded(picture(3), "PNG", exif=exif)
    end = image.index(b"IEND") - 4
    pairs = [
        (photo, sound.inserted(photo, 0xDB, b"\0")),
        (photo, sound.inserted(photo, 0xDB, sound.segment(0xEE, b"Adobe"))),
        (image, image[:end] + sound.CHUNKS["a text that unpacks to megabytes"] + image[end:]),
        (image, image[:33] + sound.CHUNKS["a text with a wrong checksum"] + image[33:]),
    ]
    for clean, odd in pairs:
        shown = decode(odd, SETTINGS, "x").rgb
        assert shown.shape == (64, 48, 3)
        assert np.array_equal(shown, decode(clean, SETTINGS, "x").rgb)


def test_transparency_survives_as_well() -> None:
    clean = encoded(picture(1).quantize(8), "PNG", transparency=bytes([0, 255, 128]))
    odd = clean[:33] + sound.CHUNKS["a text with a wrong checksum"] + clean[33:]
    shown = decode(odd, SETTINGS, "x").rgb
    assert np.array_equal(shown, decode(clean, SETTINGS, "x").rgb)
    assert (shown == 255).all(axis=2).any()


DAMAGED = {
    "a picture's chunk with a wrong checksum": lambda d: (
        d[: d.index(b"IEND") - 8] + sound.WRONG + d[-12:]
    ),
    "a header with a wrong checksum": lambda d: d[:29] + sound.WRONG + d[33:],
    "a hole in the picture and a text behind it": lambda d: (
        d[:300] + bytes(100) + d[400:-12] + b"abc" + d[-12:]
    ),
    "half of the picture and bytes before the end": lambda d: (
        d[: len(d) // 2] + b"\0\0\0" + d[-12:]
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_pixels_are_told(what: str) -> None:
    with pytest.raises(PhotoError) as caught:
        decode(DAMAGED[what](encoded(picture(1), "PNG")), SETTINGS, "x.png")
    assert caught.value.status in (Status.CORRUPT, Status.TRUNCATED)


@pytest.mark.parametrize(
    "what", ["a zero before the tables", "a short Adobe segment", "bytes behind the end"]
)
def test_a_cut_jpeg_with_oddities_is_still_truncated(what: str) -> None:
    odd = FILES[f"jpeg: {what}"].odd
    cut = odd[: odd.index(b"\xff\xda") + 400]
    with pytest.raises(PhotoError) as caught:
        decode(cut, SETTINGS, "x.jpg")
    assert caught.value.status is Status.TRUNCATED


def small(form: str, mode: str = "RGB", **options: Any) -> bytes:
    image = picture(1).resize((24, 16))
    return encoded(image.quantize(32) if form == "GIF" else image.convert(mode), form, **options)


def interlaced_png() -> bytes:
    """Return a PNG of seven passes, each with its own rows, which Pillow cannot write."""
    pixels = np.asarray(picture(1).resize((13, 9)))
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    parts = [pixels[top::down, left::across] for top, left, down, across in passes]
    scanlines = b"".join(b"\0" + row.tobytes() for part in parts for row in part)
    header = struct.pack(">IIBBBBB", 13, 9, 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(scanlines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(sound.chunk(*parts) for parts in chunks)


def needed_bytes(data: bytes) -> int:
    """Return how many bytes of a file hold all pixels, found without the code under test."""
    if data.startswith(b"\xff\xd8"):
        return len(data) - 2
    if data.startswith(b"GIF"):
        # Also the byte that ends the blocks, and one that holds only the end code.
        return len(data) - 3
    if data.startswith(b"RIFF"):
        return 20 + int.from_bytes(data[16:20], "little")
    stream = data[data.index(b"IDAT") + 4 :]
    rows = len(zlib.decompressobj().decompress(stream))
    return data.index(stream) + next(
        n for n in range(len(stream)) if len(zlib.decompressobj().decompress(stream[:n])) == rows
    )


WHOLE = {
    "jpeg": small("JPEG"),
    "best jpeg": small("JPEG", quality=100, subsampling=0),
    "jpeg with restart markers": small("JPEG", restart_marker_blocks=1),
    "grey jpeg": small("JPEG", "L"),
    "CMYK jpeg": small("JPEG", "CMYK"),
    "progressive jpeg": small("JPEG", progressive=True),
    "grey progressive jpeg": small("JPEG", "L", progressive=True),
    "CMYK progressive jpeg": small("JPEG", "CMYK", progressive=True),
    "gif": small("GIF"),
    "webp": small("WEBP"),
    "lossless webp": small("WEBP", lossless=True),
    "png": small("PNG"),
    "transparent png": small("PNG", "RGBA"),
    "16-bit png": small("PNG", "I;16"),
    "bilevel png": small("PNG", "1"),
    "interlaced png": interlaced_png(),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_cut_at_any_byte_is_ok_only_if_no_pixel_is_missing(name: str) -> None:
    data = WHOLE[name]
    shown, needed = decode(data, SETTINGS, "x").rgb, needed_bytes(data)
    if name != "16-bit png":
        assert np.array_equal(shown, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    for cut in range(12, len(data)):
        try:
            pixels = decode(data[:cut], SETTINGS, "x").rgb
        except PhotoError as e:
            assert e.status is Status.TRUNCATED, cut
            assert cut < needed, cut
        else:
            assert cut >= needed, cut
            assert np.array_equal(pixels, shown), cut


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_was_cut_and_filled_up_is_not_taken_for_whole(progressive: bool) -> None:
    data = small("JPEG", progressive=progressive)
    scan = data.index(b"\xff\xda")
    for cut in range(scan + 20, len(data) - 2, 7):
        with pytest.raises(PhotoError):
            decode(data[:cut] + bytes(2000), SETTINGS, "x")


def test_a_gif_whose_blocks_have_other_lengths_is_not_shown_wrong() -> None:
    data = small("GIF")
    at = data.rindex(b",\0\0\0\0") + 11
    assert data[at] > 100
    for length in range(1, 256):
        if length != data[at]:
            with pytest.raises(PhotoError):
                decode(data[:at] + bytes([length]) + data[at + 1 :], SETTINGS, "x")


@pytest.mark.parametrize("name", list(files()))
def test_errors_of_the_same_bytes_are_the_same_in_every_run(name: str) -> None:
    data = files()[name]
    for at in range(8, min(len(data), 400), 7):
        damaged = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
        said = set()
        for _ in range(2):
            try:
                decode(damaged, SETTINGS, "x")
            except PhotoError as e:
                said.add(str(e))
        assert len(said) < 2
        assert not any(re.search(r"0x[0-9a-f]{6,}|object at", text) for text in said)


def test_megabytes_of_strays_take_no_longer_than_the_picture() -> None:
    clean = encoded(picture(1), "JPEG")
    odd = sound.inserted(clean, 0xDB, bytes(50_000_000))
    started = time.process_time()
    assert np.array_equal(decode(odd, SETTINGS, "x").rgb, decode(clean, SETTINGS, "x").rgb)
    assert time.process_time() - started < 2


def test_codes_behind_the_last_pixel_of_a_cut_gif_are_not_read() -> None:
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    image = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x08"
    blocks = (b"\xff" + bytes(4) + b"\x55" * 251) * 10_000
    started = time.process_time()
    with pytest.raises(PhotoError):
        decode(screen + image + blocks, SETTINGS, "x")
    assert time.process_time() - started < 2


def test_a_run_scores_them(tmp_path: Path, fake_pack: str) -> None:
    photo, image = jpeg(face(1, 2)), png(face(2, 1))
    tree = {
        "stray-byte.jpg": sound.inserted(photo, 0xDB, b"\0"),
        "ff00.jpg": sound.inserted(photo, 0xC4, b"\xff\0"),
        "behind-the-first-marker.jpg": photo[:2] + b"\0" + photo[2:],
        "text-checksum.png": image[:33] + sound.CHUNKS["a text with a wrong checksum"] + image[33:],
        "large-xmp.png": image[:33] + sound.CHUNKS["packed XMP of megabytes"] + image[33:],
        "cut.jpg": sound.inserted(photo, 0xDB, b"\0")[:-200],
    }
    score(write_tree(tmp_path / "photos", tree), tmp_path / "out", fake_pack)
    found = rows(tmp_path / "out")
    assert {
        name: row["status"] for name, row in found.items() if name != "cut.jpg"
    } == dict.fromkeys([name for name in tree if name != "cut.jpg"], "ok")
    assert {row["count_total"] for row in found.values() if row["status"] == "ok"} == {3}
    assert found["cut.jpg"]["status"] == "truncated"
