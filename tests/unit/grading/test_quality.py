import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import rgb2lab

from skinbatch.grading.face import Face, find_face
from skinbatch.grading.quality import face_quality

CLASSES = ("background", "skin", "nose")
Photo = NDArray[np.uint8]


def photo(colour: tuple[int, int, int], size: int = 500) -> Photo:
    return np.full((size, size, 3), colour, np.uint8)


def face(size: int = 500) -> Face:
    labels = np.zeros((100, 100), np.uint8)
    labels[20:80, 20:80] = 1
    return find_face(labels, CLASSES, size, size)


@pytest.mark.parametrize("colour", [(230, 190, 160), (120, 80, 60), (70, 45, 35)])
def test_ita_is_that_of_the_skins_cielab_colour(colour: tuple[int, int, int]) -> None:
    quality = face_quality(photo(colour), face())
    lightness, _, b = rgb2lab(np.array([[colour]], np.uint8))[0, 0]
    assert quality is not None
    assert quality.ita_degrees == pytest.approx(
        math.degrees(math.atan((lightness - 50) / b)), abs=0.5
    )


def test_ita_looks_at_skin_only() -> None:
    pixels = photo((20, 200, 20))
    pixels[100:400, 100:400] = (230, 190, 160)
    quality, plain = face_quality(pixels, face()), face_quality(photo((230, 190, 160)), face())
    assert quality is not None
    assert plain is not None
    assert quality.ita_degrees == pytest.approx(plain.ita_degrees, abs=0.1)


@pytest.mark.parametrize("colour", [(128, 128, 128), (0, 0, 0), (150, 170, 220)])
def test_skin_without_colour_has_no_ita(colour: tuple[int, int, int]) -> None:
    quality = face_quality(photo(colour), face())
    assert quality is not None
    assert quality.ita_degrees is None


def test_brightness_is_the_mean_luma() -> None:
    grey, dark = (
        face_quality(photo((128, 128, 128)), face()),
        face_quality(photo((0, 0, 0)), face()),
    )
    assert grey is not None
    assert dark is not None
    assert grey.brightness == pytest.approx(128)
    assert (dark.brightness, dark.sharpness) == (0, 0)


def test_a_blurred_photo_is_less_sharp_and_scale_matters_little() -> None:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (50, 50, 3)).astype(np.uint8)
    sharp = np.kron(coarse, np.ones((10, 10, 1), np.uint8))
    blurred = (
        np.cumsum(sharp, axis=1, dtype=np.float64)[:, 20:] - np.cumsum(sharp, axis=1)[:, :-20]
    ) / 20
    pixels = np.zeros_like(sharp)
    pixels[:, 10:490] = blurred.astype(np.uint8)
    first, second = face_quality(sharp, face()), face_quality(pixels, face())
    twice = face_quality(np.kron(sharp, np.ones((2, 2, 1), np.uint8)), face(1000))
    assert first is not None
    assert second is not None
    assert twice is not None
    assert second.sharpness < first.sharpness / 2
    assert twice.sharpness == pytest.approx(first.sharpness, rel=0.1)


def test_a_photo_without_a_face_has_no_quality() -> None:
    assert (
        face_quality(photo((1, 2, 3)), find_face(np.zeros((9, 9), np.uint8), CLASSES, 500, 500))
        is None
    )


def test_a_tiny_face_is_measured() -> None:
    assert face_quality(photo((200, 150, 120), 10), face(10)) is not None


def test_sharpness_does_not_jump_where_the_way_of_shrinking_changes() -> None:
    """Compare sizes around 512 and 768 pixels.

    Up to 511 pixels a crop is averaged in one step, from 512 on in two, from 768 on by threes
    first.
    """
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (130, 130), np.uint8)
    sharpness = {}
    for size in (505, 511, 512, 515, 520, 760, 767, 768, 775):
        grey = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        found = face_quality(np.repeat(grey[..., None], 3, 2), face(size))
        assert found is not None
        sharpness[size] = found.sharpness
    assert max(sharpness.values()) < 1.25 * min(sharpness.values()), sharpness
