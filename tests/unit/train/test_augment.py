"""Test that random changes to training photos keep photo and labels together."""

from __future__ import annotations

import numpy as np
import pytest

from skinbatch.train.photos.augment import affine, blemish, degrade, recolour, warp, warp_labels


@pytest.mark.parametrize("seed", range(8))
def test_labels_move_with_the_photo(seed: int) -> None:
    rng = np.random.default_rng(seed)
    photo = np.zeros((80, 60, 3), np.uint8)
    photo[20:50, 10:40] = 255
    labels = (photo[..., 0] > 0).astype(np.uint8)
    matrix = affine(rng, (80, 60), 64, zoom=(0.5, 2.0), turn=25, shift=0.3)
    moved, truth = warp(photo, matrix, 64, (0, 0, 0)), warp_labels(labels, matrix, 64)
    assert np.mean((moved[..., 0] > 127) != (truth > 0)) < 0.03


def test_without_turn_shift_and_zoom_the_photo_fills_the_square_mirrored_or_not() -> None:
    seen = set()
    for seed in range(8):
        matrix = affine(np.random.default_rng(seed), (32, 32), 32, zoom=(1, 1), turn=0, shift=0)
        corners = matrix @ np.array([[0, 32], [0, 32], [1, 1]])
        assert sorted(corners[0]) == pytest.approx([0, 32]) and corners[1] == pytest.approx([0, 32])
        seen.add(bool(matrix[0, 0] < 0))
    assert seen == {True, False}


def test_spots_stay_near_the_region_and_leave_the_photo_itself_alone() -> None:
    photo = np.full((64, 64, 3), 180, np.uint8)
    region = np.zeros((64, 64), bool)
    region[40:50, 40:50] = True
    spotted = blemish(photo, region, np.random.default_rng(1), 40)
    assert (photo == 180).all()
    assert (spotted[40:50, 40:50] != 180).any()
    assert (spotted[:25, :25] == 180).all()
    np.testing.assert_array_equal(blemish(photo, np.zeros_like(region), np.random.default_rng(1), 40), photo)


def test_colour_and_quality_change_but_size_and_type_do_not() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    for seed in range(10):
        for change in (recolour, degrade):
            changed = change(photo, np.random.default_rng(seed))
            assert changed.shape == photo.shape and changed.dtype == np.uint8
