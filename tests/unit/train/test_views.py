"""Test training views: without augmentation what scoring sees, with it labels that stay with their pixels."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from skinbatch.models.preprocess import centre_square, pad_to_square
from skinbatch.train.photos.views import mirrors, relit, spoilt, view_matrix, warp, warp_labels
from skinbatch.train.recipe_sections import AugmentSection

FILL = (124, 116, 104)


def smooth(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return a photo without sharp edges, so that all ways of resizing agree."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("extent", [(90, 120), (120, 90), (300, 260)])
def test_without_augmentation_a_view_is_what_scoring_sees(
    fit: Literal["crop", "pad"], extent: tuple[int, int]
) -> None:
    photo = smooth(*extent)
    matrix = view_matrix(extent, 64, fit, AugmentSection(), np.random.default_rng(0))
    scored = centre_square(photo, 64) if fit == "crop" else pad_to_square(photo, 64, FILL)[0]
    different = np.abs(warp(photo, matrix, 64, FILL).astype(int) - scored.astype(int))
    # At the edge of the padding half a pixel is blended.
    assert np.median(different) <= 2
    assert np.percentile(different, 95) <= 12


def test_labels_stay_with_their_pixels_whatever_their_resolution() -> None:
    photo = np.zeros((128, 96, 3), np.uint8)
    photo[40:90, 30:70] = 255
    labels = (photo[::2, ::2, 0] > 0).astype(np.uint8)
    augment = AugmentSection(
        flip=0.5, rotate=40, shear=10, scale=(0.8, 1.6), stretch=(0.8, 1.2), translate=0.1, crop=0.7
    )
    for seed in range(8):
        matrix = view_matrix((128, 96), 64, "pad", augment, np.random.default_rng(seed))
        bright = warp(photo, matrix, 64, (0, 0, 0))[..., 0] > 127
        named = warp_labels(labels, matrix @ np.diag((2, 2, 1)), 64) > 0
        assert bright.any()
        assert (bright & named).sum() > 0.93 * (bright | named).sum()


def test_a_mirrored_view_says_so_and_half_of_them_are() -> None:
    rng = np.random.default_rng(0)
    turned = [
        mirrors(view_matrix((80, 80), 64, "pad", AugmentSection(flip=0.5, rotate=90), rng))
        for _ in range(200)
    ]
    assert 70 < sum(turned) < 130
    upside_down_and_mirrored = AugmentSection(flip=1.0, flip_vertical=1.0)
    assert not mirrors(view_matrix((80, 80), 64, "pad", upside_down_and_mirrored, rng))


def test_a_crop_shows_a_part_of_the_photo_as_large_as_the_input() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        matrix = view_matrix((100, 100), 50, "crop", AugmentSection(crop=0.5), rng)
        corners = np.linalg.inv(matrix) @ np.array([[0, 50], [0, 50], [1, 1]])
        side = corners[0, 1] - corners[0, 0]
        assert 50 <= side <= 100
        assert corners[:2].min() >= -1e-6
        assert corners[:2].max() <= 100 + 1e-6


def test_light_that_is_off_changes_nothing_and_light_that_is_on_does() -> None:
    photo, rng = smooth(32, 32), np.random.default_rng(0)
    assert relit(photo, AugmentSection(), rng) is photo
    assert spoilt(photo, AugmentSection(), rng) is photo
    brighter = [
        relit(photo, AugmentSection(brightness=0.2), rng).mean() / photo.mean() for _ in range(50)
    ]
    assert 0.78 < min(brighter) < 0.9 < 1.1 < max(brighter) < 1.22
    assert np.abs(relit(photo, AugmentSection(colour=1.0), rng).astype(int) - photo).mean() > 2


@pytest.mark.parametrize(
    "how",
    [
        {"blur": 1.0},
        {"jpeg": 1.0},
        {"erase": 1.0},
        {"noise": 12.0},
        {"sharpen": 1.0},
        {"resolution": 1.0},
    ],
)
def test_a_spoilt_photo_is_another_one_of_the_same_size(how: dict[str, float]) -> None:
    photo = smooth(40, 48)
    found = spoilt(photo, AugmentSection.model_validate(how), np.random.default_rng(0))
    assert found.shape == photo.shape
    assert (found != photo).any()
    assert (photo == smooth(40, 48)).all()
