"""Test that copies of a photo are found in other sizes, files and orientations, and never split apart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.annotations.likeness import perceptual_groups
from skinbatch.annotations.split import split
from skinbatch.errors import UsageError
from tests.pictures import picture


def saved(path: Path, image: Image.Image, **options: Any) -> AnnotatedPhoto:
    image.save(path, **options)
    return AnnotatedPhoto(path.name, path, path)


def test_copies_of_a_photo_are_one_group_whatever_was_done_to_them(tmp_path: Path) -> None:
    original = picture(1, 320, 240)
    photos = [
        saved(tmp_path / "a.png", original),
        saved(tmp_path / "b.jpg", original, quality=40),
        saved(tmp_path / "c.png", original.resize((150, 100))),
        saved(tmp_path / "d.png", original.resize((300, 300))),
        saved(tmp_path / "e.png", original.transpose(Image.Transpose.ROTATE_90)),
        saved(tmp_path / "f.jpg", original.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        saved(tmp_path / "g.jpg", ImageEnhance.Brightness(original).enhance(0.8)),
        *(saved(tmp_path / f"other{n}.png", picture(n, 320, 240)) for n in range(2, 30)),
    ]
    assert perceptual_groups(photos) == [0] * 7 + list(range(1, 29))


def test_photos_that_cannot_be_seen_are_alone(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    photos = [
        AnnotatedPhoto(n, tmp_path / n, tmp_path / n if p else None)
        for n, p in (("bad.jpg", 1), ("x", 0), ("y", 0))
    ]
    assert perceptual_groups(photos) == [0, 1, 2]


def photos(count: int, of_class: str = "x") -> list[AnnotatedPhoto]:
    return [
        AnnotatedPhoto(f"{of_class}{n}.jpg", Path("t"), classes=(of_class,)) for n in range(count)
    ]


def test_groups_stay_together_and_every_class_gets_its_share() -> None:
    many = photos(200, "a") + photos(50, "b") + photos(10, "c")
    rng = np.random.default_rng(0)
    groups = [f"{photo.classes}{rng.integers(0, 80)}" for photo in many]
    train, valid = split(many, 0.2, groups, seed=0)
    of = dict(zip((p.name for p in many), groups, strict=True))
    assert sorted(p.name for p in (*train, *valid)) == sorted(of)
    assert {of[p.name] for p in train} & {of[p.name] for p in valid} == set()
    shares = Counter(str(p.classes) for p in valid)
    assert (
        37 <= shares["('a',)"] <= 43 and 9 <= shares["('b',)"] <= 11 and 1 <= shares["('c',)"] <= 3
    )


def test_severities_and_numbers_of_boxes_are_spread_alike() -> None:
    def of(n: int) -> AnnotatedPhoto:
        boxes = np.zeros((n % 60, 4), np.float32)
        return AnnotatedPhoto(
            f"{n}.jpg", Path("t"), boxes=boxes, labels=("acne",) * len(boxes), severity=n % 4
        )

    train, valid = split([of(n) for n in range(240)], 0.25, range(240), seed=3)
    assert all(abs(len([p for p in valid if p.severity == s]) - 15) <= 1 for s in range(4))
    few = [
        len([p for p in part if p.boxes is not None and len(p.boxes) <= 5])
        for part in (train, valid)
    ]
    assert few == [18, 6]


def test_the_seed_decides() -> None:
    many = photos(50)
    assert split(many, 0.3, range(50), 1) == split(many, 0.3, range(50), 1)
    assert split(many, 0.3, range(50), 1) != split(many, 0.3, range(50), 2)


def test_both_parts_get_something_where_there_are_two_groups() -> None:
    for share in (0.01, 0.99):
        train, valid = split(photos(10), share, [0] * 9 + [1], 0)
        assert train and valid
    with pytest.raises(UsageError, match="10 photos form 1 group and cannot be split"):
        split(photos(10), 0.2, [0] * 10, 0)
    with pytest.raises(UsageError, match="between 0 and 1"):
        split(photos(10), 1.0, range(10), 0)
