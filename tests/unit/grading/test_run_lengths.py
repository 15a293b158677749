"""Test that label maps survive being stored as masks at the size of the photo."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from skinbatch.grading.run_lengths import label_map_of, mask_rle

CLASSES = ("background", "skin", "nose")
SIDES = st.integers(1, 40)


@given(SIDES, SIDES, st.integers(0, 60), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_the_masks_of_a_photo_that_is_not_smaller_give_the_label_map_back(
    h: int, w: int, taller: int, wider: int, seed: int
) -> None:
    label_map = np.random.default_rng(seed).integers(0, len(CLASSES), (h, w), np.uint8)
    masks = mask_rle(label_map, CLASSES, w + wider, h + taller)
    again = label_map_of(masks, CLASSES, w + wider, h + taller, (h, w))
    assert again is not None and np.array_equal(again, label_map)


def test_the_masks_of_a_photo_smaller_than_its_label_map_do_not_tell_the_map() -> None:
    label_map = np.zeros((8, 8), np.uint8)
    assert label_map_of(mask_rle(label_map, CLASSES, 8, 7), CLASSES, 8, 7, (8, 8)) is None
    assert label_map_of(mask_rle(label_map, CLASSES, 7, 8), CLASSES, 7, 8, (8, 8)) is None


def test_masks_that_no_label_map_of_this_size_gives_are_not_read_as_one() -> None:
    fine = np.zeros((8, 8), np.uint8)
    fine[3, 3] = 1
    assert label_map_of(mask_rle(fine, CLASSES, 8, 8), CLASSES, 8, 8, (4, 4)) is None
