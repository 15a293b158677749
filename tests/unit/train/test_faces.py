"""Test that training photos are cut to faces as the scorer cuts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinbatch.models.pack import load_pack
from skinbatch.scoring.scorer import Scorer
from skinbatch.train.photos.faces import cut_faces
from skinbatch.train.photos.photo_store import StoredPhoto
from tests.faces import face


@pytest.fixture
def photos(tmp_path: Path) -> list[StoredPhoto]:
    """Return nine faces, more than are segmented at once."""
    for n in range(9):
        Image.fromarray(face(left=n % 4, right=n % 3, shade=9 * n)).save(tmp_path / f"{n}.png")
    return [StoredPhoto(str(n), tmp_path / f"{n}.png") for n in range(9)]


def test_a_face_is_where_the_scorer_finds_it(photos: list[StoredPhoto], fake_pack: str) -> None:
    cut = cut_faces(photos, load_pack(fake_pack), masked=False, device="cpu")
    scorer = Scorer(fake_pack, device="cpu")
    assert [photo.cut and photo.cut.crop for photo in cut] == [
        scorer(photo.path).crop for photo in photos
    ]
    x1, y1, x2, y2 = scorer(photos[0].path).crop or (0, 0, 0, 0)
    assert (cut[0].pixels() == face()[y1:y2, x1:x2]).all()


def test_a_photo_without_a_face_stays_whole(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 80, 3), (30, 60, 140), np.uint8)).save(tmp_path / "wall.png")
    (cut,) = cut_faces(
        [StoredPhoto("wall", tmp_path / "wall.png")],
        load_pack("starter"),
        masked=True,
        device="cpu",
    )
    assert cut.pixels().shape == (64, 80, 3)
    assert (cut.pixels() == (30, 60, 140)).all()


def test_masked_faces_are_black_off_the_skin(photos: list[StoredPhoto], fake_pack: str) -> None:
    (cut,) = cut_faces(photos[:1], load_pack(fake_pack), masked=True, device="cpu")
    pixels = cut.pixels()
    assert not pixels[0, 0].any()
    middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]
    assert middle.tolist() == [210, 160, 130]
