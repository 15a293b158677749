"""Test that `Scorer(pack)(x)` is the same for a path, bytes, a Pillow image and an address in a bucket."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from skinbatch.config import parse_config
from skinbatch.errors import UsageError
from skinbatch.scoring.scorer import Scorer
from skinbatch.types import ImageResult, Status
from tests.conftest import S3Server
from tests.faces import face, png, tar_bytes, write_tree
from tests.field.sound import turned


@pytest.fixture(scope="module")
def scorer(fake_pack: str) -> Scorer:
    return Scorer(fake_pack)


def opened(path: Path) -> Image.Image:
    return Image.open(path)


WAYS: dict[str, Callable[[Path], Any]] = {
    "a path": lambda path: path,
    "text": str,
    "bytes": Path.read_bytes,
    "a bytearray": lambda path: bytearray(path.read_bytes()),
    "an image that is opened": opened,
    "an image that is turned": lambda path: ImageOps.exif_transpose(opened(path)),
}


def all_ways(scorer: Scorer, path: Path) -> ImageResult:
    """Return the result, after checking that all ways agree on it."""
    results = {way: scorer(of(path)) for way, of in WAYS.items()}
    first = results["a path"]
    assert {way: result for way, result in results.items() if result != first} == {}
    return first


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_in_every_way(
    scorer: Scorer, tmp_path: Path, form: str, orientation: int
) -> None:
    wide = np.concatenate([face(2, 3), np.full((96, 32, 3), 90, np.uint8)], axis=1)
    options: dict[str, Any] = (
        {"quality": 95} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    )
    Image.fromarray(wide).save(tmp_path / "x", form, exif=turned(orientation), **options)
    result = all_ways(scorer, tmp_path / "x")
    assert (result.width, result.height) == ((96, 128) if orientation > 4 else (128, 96))
    assert result.status is Status.OK


def modes() -> dict[str, tuple[Image.Image, str, dict[str, Any]]]:
    """Return name -> image, a format that keeps its mode, and options."""
    rgb = Image.fromarray(face(2, 1))
    clear = Image.new("L", rgb.size, 255)
    clear.paste(0, (0, 0, 96, 20))
    rgba, grey_clear = rgb.copy(), rgb.convert("LA")
    rgba.putalpha(clear)
    grey_clear.putalpha(clear)
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    return {
        "P": (rgb.quantize(64), "PNG", {}),
        "P with transparency": (rgb.quantize(64), "PNG", {"transparency": 0}),
        "L": (rgb.convert("L"), "PNG", {}),
        "LA": (grey_clear, "PNG", {}),
        "RGBA": (rgba, "PNG", {}),
        "1": (rgb.convert("1"), "PNG", {}),
        "I;16": (deep, "PNG", {}),
        "I;16 tiff": (deep, "TIFF", {}),
        "F": (rgb.convert("F"), "TIFF", {}),
        "CMYK": (rgb.convert("CMYK"), "TIFF", {}),
        "CMYK jpeg": (rgb.convert("CMYK"), "JPEG", {"quality": 95}),
        "YCbCr": (rgb.convert("YCbCr"), "JPEG", {"quality": 95}),
    }


@pytest.mark.parametrize("mode", modes())
def test_images_in_other_modes_are_what_their_file_is(
    scorer: Scorer, tmp_path: Path, mode: str
) -> None:
    image, form, options = modes()[mode]
    image.save(tmp_path / "x", form, **options)
    with Image.open(tmp_path / "x") as opened_image:
        shown = scorer._pixels(opened_image)
    assert np.array_equal(shown, scorer._pixels(tmp_path / "x"))
    assert all_ways(scorer, tmp_path / "x").status is Status.OK


def test_an_image_made_in_memory_is_shown_as_its_file_would_be(scorer: Scorer) -> None:
    for mode, (image, form, options) in modes().items():
        if form == "JPEG" or options:
            continue
        out = io.BytesIO()
        image.save(out, form)
        assert np.array_equal(scorer._pixels(image), scorer._pixels(out.getvalue())), mode


def test_an_array_is_taken_as_it_is_displayed(scorer: Scorer) -> None:
    assert scorer(face(2, 3)) == scorer(png(face(2, 3)))


def test_a_cut_file_is_truncated_in_every_way(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(face(2, 3))[:-200])
    with Image.open(tmp_path / "x.png") as image:
        results = [
            scorer(of) for of in (tmp_path / "x.png", (tmp_path / "x.png").read_bytes(), image)
        ]
    assert [result.status for result in results] == [Status.TRUNCATED] * 3


def test_an_image_over_the_limit_is_too_large(fake_pack: str) -> None:
    scorer = Scorer(fake_pack, config=parse_config({"decode": {"max_pixels": 100}}))
    assert scorer(Image.new("RGB", (11, 10))).status is Status.TOO_LARGE


def test_photos_in_a_bucket_and_members_of_archives_are_read(
    s3: S3Server, fake_pack: str, tmp_path: Path
) -> None:
    bucket = s3.bucket()
    shard = tar_bytes({"a/1.png": png(face(1, 2)), "a/cut.png": png(face(1, 2))[:-300]})
    s3.client.put_object(Bucket=bucket, Key="faces/ä 1.png", Body=png(face(1, 2)))
    s3.client.put_object(Bucket=bucket, Key="shards/x.tar", Body=shard)
    write_tree(tmp_path, {"x.tar": shard, "folder/empty.jpg": b""})
    scorer = Scorer(fake_pack, config=parse_config({"storage": s3.settings.model_dump()}))

    expected = scorer(face(1, 2))
    assert expected.count_total == 3
    for name in (
        f"s3://{bucket}/faces/ä 1.png",
        f"s3://{bucket}/shards/x.tar/a/1.png",
        tmp_path / "x.tar/a/1.png",
    ):
        assert scorer(name) == expected
    assert scorer(f"s3://{bucket}/shards/x.tar/a/cut.png").status is Status.TRUNCATED
    assert scorer(tmp_path / "folder/empty.jpg").status is Status.EMPTY

    missing: list[str | Path] = [
        *(f"s3://{bucket}/faces/2.png", f"s3://{bucket}/shards/x.tar/a/2.png", f"s3://{bucket}"),
        *(
            "s3://no-such-bucket-here/1.png",
            tmp_path / "2.png",
            tmp_path / "x.tar/a/2.png",
            tmp_path / "folder",
        ),
    ]
    for gone in missing:
        with pytest.raises(UsageError) as caught:
            scorer(gone)
        assert str(gone) in str(caught.value) or "no-such-bucket" in str(caught.value)
    with pytest.raises(UsageError, match=r"did you mean s3://bucket/x\.jpg"):
        scorer(Path("s3://bucket/x.jpg"))
