"""Test that a training remembers its inputs by their bytes, and the problems in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skinbatch.annotations.checks import check
from skinbatch.errors import UsageError
from skinbatch.train import photo_checks
from skinbatch.train.fitting.progress import SilentProgress
from skinbatch.train.fitting.recipe_parts import gather_part, parts_of
from skinbatch.train.photo_checks import known_by
from skinbatch.train.photos.gather import GatheredPhotos
from skinbatch.train.recipe_file import read_recipe
from skinbatch.train.session import train
from tests.unit.train.detection.spotted import write_spotted

SEGMENTER = """
stage = "segmenter"
name = "faces"
[model]
arch = "bisenet-light"
classes = ["background", "skin", "nose"]
size = 64
[data]
train = [{ truth = "photos" }]
valid_share = 0.5
[schedule]
iterations = 1
batch = 2
"""


class Stops(SilentProgress):
    def step(self, now: Any) -> None:
        raise KeyboardInterrupt


def padded(path: Path, length: int) -> None:
    """Return the same picture in a file of this many bytes."""
    path.write_bytes(path.read_bytes().ljust(length, b"\0"))


def gathered(recipe_file: Path) -> GatheredPhotos:
    recipe = read_recipe(recipe_file)
    (part,) = parts_of(recipe)
    return gather_part(recipe, part)


def test_a_photo_of_the_same_size_that_shows_something_else_ends_a_training_that_goes_on(
    tmp_path: Path,
) -> None:
    recipe = write_spotted(tmp_path / "own", photos=8, clear=2)
    photo = sorted((recipe.parent / "valid").glob("*.jpg"))[0]
    padded(photo, 50_000)
    with pytest.raises(KeyboardInterrupt):
        train("detector", recipe, tmp_path / "out", Stops())
    with pytest.raises(KeyboardInterrupt):  # it goes on
        train("detector", recipe, tmp_path / "out", Stops())
    with Image.open(photo) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photo)
    padded(photo, 50_000)
    with pytest.raises(
        UsageError, match=r"have changed since it began \(valid: 2 photos then, 2 now\)"
    ):
        train("detector", recipe, tmp_path / "out", SilentProgress())


def test_a_mask_of_the_same_size_that_says_something_else_is_noticed(tmp_path: Path) -> None:
    images, masks = tmp_path / "photos" / "images", tmp_path / "photos" / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    rng = np.random.default_rng(0)
    for n in range(4):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(images / f"{n}.png")
        Image.fromarray(rng.integers(0, 3, (32, 32), dtype=np.uint8)).save(masks / f"{n}.png")
        padded(masks / f"{n}.png", 5_000)
    (tmp_path / "recipe.toml").write_text(SEGMENTER)
    taken = gathered(tmp_path / "recipe.toml").train
    before = known_by(taken, {})
    assert known_by(taken, {}) == before
    (mask,) = taken[0].photo.masks or ()
    Image.fromarray(rng.integers(0, 3, (32, 32), dtype=np.uint8)).save(mask)
    padded(mask, 5_000)
    assert known_by(taken, {}) != before


def test_photos_that_were_compared_are_not_read_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = gathered(write_spotted(tmp_path, photos=6, clear=2))
    hashes: dict[Path, str] = {}
    check(found.splits(), "detector", ["acne"], {"*": "acne"}, hashes=hashes)
    read: list[Path] = []
    content = photo_checks._content

    def noting(path: Path) -> str:
        read.append(path)
        return content(path)

    monkeypatch.setattr(photo_checks, "_content", noting)
    known = known_by(found.train, hashes)
    assert {path.suffix for path in read} == {".xml"}
    assert known_by(found.train, {}) == known


def test_strict_is_strict_with_a_training_that_is_done(tmp_path: Path) -> None:
    recipe = write_spotted(tmp_path / "own", photos=8, clear=2)
    recipe.write_text(recipe.read_text().replace("epochs = 6", "iterations = 1"))
    (twice,) = (recipe.parent / "valid").glob("*_001.jpg")
    # Another file, the same photo.
    twice.write_bytes((recipe.parent / "train" / twice.name).read_bytes() + b"\0")
    assert train("detector", recipe, tmp_path / "out", SilentProgress()).trained is not None
    assert train("detector", recipe, tmp_path / "out", SilentProgress()).trained is None
    with pytest.raises(UsageError, match=r"photos that look the same in two splits:\n .*_001\.jpg"):
        train("detector", recipe, tmp_path / "out", SilentProgress(), strict=True)
    (tmp_path / "out" / "work" / "detector" / "problems.json").unlink()
    with pytest.raises(
        UsageError, match=r"problems in the annotated photos; .*problems\.json, which named them"
    ):
        train("detector", recipe, tmp_path / "out", SilentProgress(), strict=True)


def test_a_class_that_is_mapped_and_that_no_annotation_has_is_told(tmp_path: Path) -> None:
    recipe = write_spotted(tmp_path / "own", photos=8, clear=2)
    recipe.write_text(
        recipe.read_text().replace(
            '"*" = "acne"', '"*" = "acne", papule = "acne", papules = "acne"'
        )
    )

    class Heard(Stops):
        notes: list[str] = []  # noqa: RUF012

        def note(self, text: str) -> None:
            self.notes.append(text)

    heard = Heard()
    with pytest.raises(KeyboardInterrupt):
        train("detector", recipe, tmp_path / "out", heard)
    assert [note for note in heard.notes if "data.map" in note] == [
        "`data.map` 'papule': the truth has no class with this name"
    ]
