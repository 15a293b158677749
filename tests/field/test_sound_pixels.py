"""Test that sound pixels are `ok` whatever surrounds them, and that damaged pixels still are not."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest

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
    "a picture's chunk with a wrong checksum": lambda d: d[: d.index(b"IEND") - 8] + sound.WRONG + d[-12:],
    "a header with a wrong checksum": lambda d: d[:29] + sound.WRONG + d[33:],
    "a hole in the picture and a text behind it": lambda d: d[:300] + bytes(100) + d[400:-12] + b"abc" + d[-12:],
    "half of the picture and bytes before the end": lambda d: d[: len(d) // 2] + b"\0\0\0" + d[-12:],
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_pixels_are_told(what: str) -> None:
    with pytest.raises(PhotoError) as caught:
        decode(DAMAGED[what](encoded(picture(1), "PNG")), SETTINGS, "x.png")
    assert caught.value.status in (Status.CORRUPT, Status.TRUNCATED)


@pytest.mark.parametrize("what", ["a zero before the tables", "a short Adobe segment", "bytes behind the end"])
def test_a_cut_jpeg_with_oddities_is_still_truncated(what: str) -> None:
    odd = FILES[f"jpeg: {what}"].odd
    cut = odd[: odd.index(b"\xff\xda") + 400]
    with pytest.raises(PhotoError) as caught:
        decode(cut, SETTINGS, "x.jpg")
    assert caught.value.status is Status.TRUNCATED


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
    assert {name: row["status"] for name, row in found.items() if name != "cut.jpg"} == dict.fromkeys(
        [name for name in tree if name != "cut.jpg"], "ok"
    )
    assert {row["count_total"] for row in found.values() if row["status"] == "ok"} == {3}
    assert found["cut.jpg"]["status"] == "truncated"
