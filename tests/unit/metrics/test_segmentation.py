"""Test Dice and IoU against scikit-learn over the pixels, and against masks drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.segmentation import overlaps, segmentation

CLASSES = ("background", "skin", "nose")
NO_INTERVALS = Resampling(0)


def test_two_of_three_pixels_in_common() -> None:
    truth, found = np.array([[1, 1, 1, 0]], np.uint8), np.array([[0, 1, 1, 0]], np.uint8)
    pixels = overlaps(truth, found, 3)
    assert pixels.tolist() == [[1, 1, 2], [2, 3, 2], [0, 0, 0]]
    numbers = segmentation(pixels[None], CLASSES, NO_INTERVALS)
    assert numbers["skin"]["dice"].value == pytest.approx(4 / 5)
    assert numbers["skin"]["iou"].value == pytest.approx(2 / 3)
    assert np.isnan(numbers["nose"]["dice"].value)
    assert numbers["mean"]["dice"].value == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_it_is_the_f1_and_jaccard_score_of_the_pixels() -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 3, (20, 30)), rng.integers(0, 3, (20, 30))) for _ in range(6)]
    numbers = segmentation(
        np.array([overlaps(a, b, 3) for a, b in pairs]), CLASSES, Resampling(100)
    )
    truth, found = (np.concatenate([p[k].ravel() for p in pairs]) for k in (0, 1))
    dice, iou = f1_score(truth, found, average=None), jaccard_score(truth, found, average=None)
    own = np.mean([f1_score(a.ravel(), b.ravel(), average=None) for a, b in pairs], axis=0)
    own_iou = np.mean([jaccard_score(a.ravel(), b.ravel(), average=None) for a, b in pairs], axis=0)
    for k, name in enumerate(CLASSES):
        assert numbers[name]["dice"].value == pytest.approx(dice[k])
        assert numbers[name]["iou"].value == pytest.approx(iou[k])
        assert numbers[name]["photo_dice"].value == pytest.approx(own[k])
        assert numbers[name]["photo_iou"].value == pytest.approx(own_iou[k])
        assert numbers[name]["dice"].low < numbers[name]["dice"].value < numbers[name]["dice"].high
    assert numbers["mean"]["iou"].value == pytest.approx(iou.mean())


def test_photos_without_a_class_do_not_count_in_its_mean_over_photos() -> None:
    with_nose, without = np.array([[2, 2, 0]], np.uint8), np.array([[0, 0, 0]], np.uint8)
    pixels = np.array([overlaps(with_nose, with_nose, 3), overlaps(without, without, 3)])
    numbers = segmentation(pixels, CLASSES, NO_INTERVALS)
    assert numbers["nose"]["photo_dice"].value == 1
    missed = np.array([overlaps(with_nose, with_nose, 3), overlaps(with_nose, without, 3)])
    assert segmentation(missed, CLASSES, NO_INTERVALS)["nose"]["photo_dice"].value == 0.5


def test_no_photos_have_no_dice() -> None:
    numbers = segmentation(np.zeros((0, 3, 3), np.int64), CLASSES, Resampling(10))
    assert all(np.isnan(number.value) for of in numbers.values() for number in of.values())
