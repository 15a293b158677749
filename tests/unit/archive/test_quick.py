"""Test that the quick decoders give Pillow's pixels, and leave everything else to Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin

from skinbatch.archive import decode as decoding
from skinbatch.archive.decode import PhotoError, decode
from skinbatch.archive.formats import image_format
from skinbatch.archive.quick import quick_pixels
from skinbatch.config import DecodeSettings

Pixels = NDArray[np.uint8]
ORIENTATION = 0x0112
SETTINGS = DecodeSettings()


def noisy(mode: str = "RGB", size: tuple[int, int] = (61, 47)) -> Image.Image:
    """Return a photo with gradients and noise, so that every step of a decoder matters."""
    width, height = size
    ramp = np.linspace(0, 255, width * height * 4).reshape(height, width, 4)
    noise = np.random.default_rng(5).normal(0, 25, ramp.shape)
    return Image.fromarray((ramp + noise).clip(0, 255).astype(np.uint8), "RGBA").convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def text(keyword: str, value: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text(keyword, value)
    return info


def with_chunk(png: bytes, name: bytes, data: bytes) -> bytes:
    """Return a PNG with another chunk before its pixels."""
    at = png.index(b"IDAT") - 4
    checksum = struct.pack(">I", zlib.crc32(name + data))
    return png[:at] + struct.pack(">I", len(data)) + name + data + checksum + png[at:]


QUICK = {
    "baseline": saved(noisy(), "JPEG", quality=85),
    "4:4:4": saved(noisy(), "JPEG", quality=95, subsampling=0),
    "4:2:2": saved(noisy(), "JPEG", quality=60, subsampling=1),
    "progressive": saved(noisy(), "JPEG", progressive=True),
    "restart markers": saved(noisy(), "JPEG", restart_marker_blocks=2),
    "rgb jpeg": saved(noisy(), "JPEG", keep_rgb=True),
    "grey jpeg": saved(noisy("L"), "JPEG"),
    "turned jpeg": saved(noisy(), "JPEG", exif=turned(6)),
    "mirrored jpeg": saved(noisy(), "JPEG", exif=turned(5)),
    "one pixel": saved(noisy(size=(1, 1)), "JPEG"),
    "png": saved(noisy(), "PNG"),
    "png with text": saved(noisy(), "PNG", pnginfo=text("Comment", "by a camera")),
    "png with gamma": with_chunk(saved(noisy(), "PNG"), b"gAMA", struct.pack(">I", 100_000)),
    "png with an ICC profile": saved(noisy(), "PNG", icc_profile=b"not a profile" * 20),
}
SLOW = {
    "cmyk": saved(noisy("CMYK"), "JPEG"),
    "grey png": saved(noisy("L"), "PNG"),
    "transparent png": saved(noisy("RGBA"), "PNG"),
    "png with a transparent colour": saved(noisy(), "PNG", transparency=(0, 0, 0)),
    "palette": saved(noisy("P"), "PNG"),
    "turned png": saved(noisy(), "PNG", exif=turned(8)),
    "webp": saved(noisy(), "WEBP", lossless=True),
}


def with_pillow(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Pixels | str:
    """Return what Pillow alone makes of a file: pixels, or the reason why there are none."""
    with monkeypatch.context() as patched:
        patched.setattr(decoding, "quick_pixels", lambda data, kind, image: None)
        return pixels_or_reason(data)


def pixels_or_reason(data: bytes) -> Pixels | str:
    try:
        return decode(data, SETTINGS, "a.jpg").rgb
    except PhotoError as e:
        return f"{e.status}: {e}"


def same(a: Pixels | str, b: Pixels | str) -> bool:
    return a == b if isinstance(a, str) or isinstance(b, str) else np.array_equal(a, b)


@pytest.mark.parametrize("name", QUICK | SLOW)
def test_pixels_are_those_of_pillow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (QUICK | SLOW)[name]
    right = with_pillow(data, monkeypatch)
    found = pixels_or_reason(data)

    assert isinstance(right, np.ndarray)
    assert same(found, right)
    assert isinstance(found, np.ndarray) and found.flags.c_contiguous


@pytest.mark.parametrize("name", QUICK | SLOW)
def test_ordinary_files_alone_are_decoded_quickly(name: str) -> None:
    data = (QUICK | SLOW)[name]
    kind = image_format(data)
    assert kind is not None
    with Image.open(io.BytesIO(data)) as image:
        assert (quick_pixels(data, kind, image) is not None) == (name in QUICK)


def test_the_orientation_in_a_text_of_a_png_is_left_to_pillow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = turned(6).tobytes()
    data = saved(
        noisy(),
        "PNG",
        pnginfo=text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n"),
    )
    found = pixels_or_reason(data)
    assert isinstance(found, np.ndarray)
    assert found.shape == (61, 47, 3)
    assert same(found, with_pillow(data, monkeypatch))


def test_pillow_does_not_read_the_pixels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image) -> None:
        raise AssertionError("the pixels were decoded twice")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", fail)
    for name, data in QUICK.items():
        assert isinstance(pixels_or_reason(data), np.ndarray), name


@pytest.mark.parametrize("name", QUICK)
def test_damaged_files_are_told_as_pillow_tells_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = QUICK[name]
    rng = np.random.default_rng(len(name))
    for _ in range(60):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 4)):
            damaged[at] = rng.integers(0, 256)
        data = bytes(damaged[: rng.integers(len(whole) // 2, len(whole) + 1)])

        assert same(pixels_or_reason(data), with_pillow(data, monkeypatch)), data.hex()


def test_real_photos_are_decoded_to_the_same_pixels(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [path for path in sorted(shared_data.rglob("*")) if path.suffix in (".jpg", ".png")]
    assert photos
    for path in photos[:: max(1, len(photos) // 60)]:
        data = path.read_bytes()
        assert same(pixels_or_reason(data), with_pillow(data, monkeypatch)), path
