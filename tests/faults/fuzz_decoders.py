"""Fuzz the decoders: any bytes must become pixels or a PhotoError.

`python -m tests.faults.fuzz_decoders FOLDER -max_total_time=60`. FOLDER keeps interesting inputs
and starts with the corpus.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["skinbatch.archive"]):
    from skinbatch.archive.decode import PhotoError, decode, expected_bytes
from skinbatch.config import DecodeSettings
from tests.faults.corpus import hostile_photos, sound

SETTINGS = DecodeSettings(max_pixels=1_000_000, max_image_bytes=1 << 20)


def one(data: bytes) -> None:
    expected = expected_bytes(data, SETTINGS)
    assert 0 <= expected <= 3 * SETTINGS.max_pixels
    try:
        photo = decode(data, SETTINGS, "photo")
    except PhotoError as e:
        assert str(e).startswith("photo: ")
        return
    assert photo.rgb.shape == (photo.height, photo.width, 3)
    assert photo.width * photo.height <= SETTINGS.max_pixels


def seeds() -> dict[str, bytes]:
    small = {h.path: h.data for h in hostile_photos() if len(h.data) < 20_000}
    return small | {f"sound.{ending}": data for ending, data in sound().items()}


def main() -> None:
    for number, data in enumerate(seeds().values()):
        Path(sys.argv[1], f"seed-{number:03}").write_bytes(data)
    atheris.Setup([*sys.argv, "-timeout=10", "-rss_limit_mb=2048"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
