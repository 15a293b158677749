"""Test that any photo becomes pixels, or a status with a reason."""

from __future__ import annotations

import base64
import errno
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from PIL import Image

from skinbatch.archive.decode import MemoryFull, Photo, PhotoError, decode, expected_bytes
from skinbatch.config import DecodeSettings
from skinbatch.types import Status
from tests.pictures import encoded, picture

# 64 x 48: skin colour, its top left quarter blue. No free encoder is at hand when tests run.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAAAERA"
    "AAEAAQAAAAABoQABAAAAAAAAADUAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/WlwcnAAAADdaXBjbwAA"
    "AHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq"
    "5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAA"
    "MAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAD1tZGF0AAAAMSgBr1j5Et3/457kbVH+"
    "pdLxzDULaFG/Xk1yPramU7H1q3q6Df74FN9qfaETJQ09xPo="
)
SETTINGS = DecodeSettings()
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {"quality": 95}),
    "progressive jpeg": ("JPEG", {"quality": 95, "progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 90}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "avif": ("AVIF", {"quality": 90}),
    "tiff": ("TIFF", {}),
    "lzw tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "jpeg tiff": ("TIFF", {"compression": "jpeg"}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
}


def files() -> dict[str, bytes]:
    return {
        name: encoded(picture(1), form, **options) for name, (form, options) in FORMS.items()
    } | {"heic": HEIC}


def status_of(data: bytes, settings: DecodeSettings = SETTINGS) -> Status:
    with pytest.raises(PhotoError) as caught:
        decode(data, settings, "photo.jpg")
    assert "photo.jpg" in str(caught.value)
    return caught.value.status


def pixels(
    image: Image.Image, form: str = "PNG", **options: Any
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return decode(encoded(image, form, **options), SETTINGS, "x").rgb


@pytest.mark.parametrize("name", list(files()))
def test_every_format_decodes_to_rgb(name: str) -> None:
    photo = decode(files()[name], SETTINGS, "x.jpg")
    assert isinstance(photo, Photo)
    assert photo.rgb.shape == (48, 64, 3)
    assert photo.rgb.dtype == np.uint8 and photo.rgb.flags.c_contiguous
    assert (photo.width, photo.height) == (64, 48)
    if name == "heic":
        assert np.abs(photo.rgb[5, 5].astype(int) - [20, 60, 160]).max() < 8
        assert np.abs(photo.rgb[40, 60].astype(int) - [200, 120, 90]).max() < 8
    else:
        assert np.abs(photo.rgb.astype(int) - np.asarray(picture(1))).mean() < (
            10 if name == "gif" else 4
        )


@pytest.mark.parametrize("name", list(files()))
def test_a_file_cut_anywhere_is_truncated(name: str) -> None:
    data = files()[name]
    # Of which no pixel has need.
    end = {"jpeg": 2, "progressive jpeg": 2, "png": 22, "gif": 3}.get(name, 0)
    cuts = {
        *range(12, len(data) - end, max(1, len(data) // 60)),
        *range(len(data) - end - 12, len(data) - end),
    }
    assert {cut: status_of(data[:cut]) for cut in sorted(cuts)} == dict.fromkeys(
        sorted(cuts), Status.TRUNCATED
    )


def test_a_file_cut_within_its_signature_is_truncated() -> None:
    assert [status_of(files()["png"][:n]) for n in (1, 4, 7)] == [Status.TRUNCATED] * 3


def test_a_jpeg_with_something_behind_its_end_decodes() -> None:
    assert decode(files()["jpeg"] + b"trailer", SETTINGS, "x").width == 64


def test_a_jpeg_whose_thumbnail_is_whole_is_still_truncated() -> None:
    thumbnail = files()["jpeg"]
    with_thumbnail = encoded(
        picture(1), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + thumbnail
    )
    assert decode(with_thumbnail, SETTINGS, "x").width == 64
    assert status_of(with_thumbnail[:-3]) is Status.TRUNCATED


def test_zero_bytes_are_empty() -> None:
    assert status_of(b"") is Status.EMPTY


@pytest.mark.parametrize(
    "data",
    [b"<html>no photo</html>", b"\0" * 500, b"PK\x03\x04" + b"x" * 99, b"BMW is a car brand"],
)
def test_bytes_without_a_known_signature_are_unsupported(data: bytes) -> None:
    assert status_of(data) is Status.UNSUPPORTED


def test_a_known_signature_that_will_not_decode_is_corrupt() -> None:
    png = bytearray(files()["png"])
    png[len(png) // 2] ^= 1
    assert status_of(bytes(png)) is Status.CORRUPT
    assert status_of(b"\xff\xd8\xff\xe0\x00\x10JFIF" + b"\x01" * 500) is Status.CORRUPT
    webp = files()["webp"]
    assert status_of(webp[:20] + b"\xff" * (len(webp) - 20)) is Status.CORRUPT


def test_a_photo_over_the_byte_limit_is_too_large() -> None:
    data = files()["jpeg"]
    assert decode(data, DecodeSettings(max_image_bytes=len(data)), "x").width == 64
    assert status_of(data, DecodeSettings(max_image_bytes=len(data) - 1)) is Status.TOO_LARGE


def test_a_decompression_bomb_is_too_large_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )
    assert status_of(bomb) is Status.TOO_LARGE
    assert status_of(bomb[:60]) is Status.TOO_LARGE


def test_the_pixel_limit_is_exact() -> None:
    data = files()["png"]
    assert decode(data, DecodeSettings(max_pixels=64 * 48), "x").width == 64
    assert status_of(data, DecodeSettings(max_pixels=64 * 48 - 1)) is Status.TOO_LARGE


@pytest.mark.parametrize("name", list(files()))
def test_the_header_says_how_many_bytes_the_pixels_will_be(name: str) -> None:
    data = files()[name]
    assert expected_bytes(data, SETTINGS) == decode(data, SETTINGS, "x").rgb.nbytes == 64 * 48 * 3


def test_what_is_refused_is_expected_to_have_no_pixels() -> None:
    data = files()["png"]
    assert expected_bytes(data, DecodeSettings(max_pixels=64 * 48 - 1)) == 0
    assert expected_bytes(data, DecodeSettings(max_image_bytes=len(data) - 1)) == 0
    assert [expected_bytes(d, SETTINGS) for d in (b"", b"no photo", data[:20])] == [0, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(form: str, orientation: int) -> None:
    upright = np.asarray(picture(3))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = (
        {"quality": 95} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    )
    shown = pixels(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif, **options)
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright).mean() < 3


def test_malformed_exif_does_not_stop_a_photo() -> None:
    data = encoded(picture(1), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert decode(data, SETTINGS, "x").width == 64


def test_grey_palette_and_bilevel_become_rgb() -> None:
    grey = picture(1).convert("L")
    assert (pixels(grey) == np.asarray(grey)[..., None]).all()
    palette = picture(1).quantize(8)
    assert (pixels(palette) == np.asarray(palette.convert("RGB"))).all()
    bilevel = picture(1).convert("1")
    assert set(np.unique(pixels(bilevel, "TIFF"))) == {0, 255}


def test_cmyk_jpeg_has_the_colours_that_it_was_made_of() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(pixels(cmyk, "JPEG")[8, 8].astype(int) - [255, 0, 0]).max() < 4


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_by_its_full_range(form: str) -> None:
    deep = np.array([[0, 257, 32768, 65535]], np.uint16).repeat(4, 0)
    assert pixels(Image.fromarray(deep), form)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_16_bit_colour_keeps_its_high_byte() -> None:
    rows = np.array([[[0, 0x8000, 0xFFFF]]], ">u2").tobytes()

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" + rows))
        + chunk(b"IEND", b"")
    )
    assert decode(png, SETTINGS, "x").rgb[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 128.0, 255.0], [0, 128, 255]),
        ([0.0, 32768.0, 65535.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), 0.5, 1.0], [0, 128, 255]),
        ([7e9, 7e9, 7e9], [0, 0, 0]),
    ],
)
def test_float_tiff_is_scaled_by_the_range_that_holds_it(
    values: list[float], shown: list[int]
) -> None:
    assert (
        pixels(Image.fromarray(np.array([values], np.float32)), "TIFF")[0, :, 0].tolist() == shown
    )


def test_transparent_pixels_lie_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    image.putpixel((1, 0), (200, 0, 0, 128))
    assert pixels(image)[0].tolist() == [[255, 255, 255], [227, 127, 127]]
    assert pixels(Image.new("LA", (1, 1), (0, 0)))[0, 0].tolist() == [255, 255, 255]
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([9, 9, 9])
    assert pixels(palette, transparency=0)[0, 0].tolist() == [255, 255, 255]


def test_an_animation_is_its_first_frame() -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        shown = pixels(first, form, save_all=True, append_images=[second])
        assert shown[4, 4, 0] > 240 and shown[4, 4, 2] < 15, form


@pytest.mark.parametrize("name", list(files()))
@trials(max_examples=40, deadline=None)
@given(data=st.data())
def test_damage_gives_pixels_or_a_status_and_nothing_else(name: str, data: st.DataObject) -> None:
    damaged = bytearray(files()[name])
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        photo = decode(bytes(damaged), DecodeSettings(max_pixels=1_000_000), "x")
    except PhotoError as e:
        assert e.status in set(Status) - {Status.OK}
    else:
        assert photo.rgb.ndim == 3


def test_real_photos_decode_as_pillow_shows_them(shared_data: Path) -> None:
    for path in sorted((shared_data / "acne04" / "valid").glob("*.jpg"))[:5]:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            assert (
                decode(path.read_bytes(), SETTINGS, path.name).rgb
                == np.asarray(image.convert("RGB"))
            ).all()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't allocate read lock"),
    ],
    ids=repr,
)
def test_a_photo_is_not_corrupt_because_memory_is_full(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MemoryFull, match="lower max_pixels") as raised:
        decode(encoded(picture(8, 8), "BMP"), DecodeSettings(), "a.bmp")
    assert raised.value.status is Status.TOO_LARGE
