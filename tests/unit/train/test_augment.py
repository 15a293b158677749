"""Test the spots that are painted on training photos."""

from __future__ import annotations

import numpy as np

from skinbatch.train.photos.augment import blemish


def test_spots_stay_near_the_region_and_leave_the_photo_itself_alone() -> None:
    photo = np.full((64, 64, 3), 180, np.uint8)
    region = np.zeros((64, 64), bool)
    region[40:50, 40:50] = True
    spotted = blemish(photo, region, np.random.default_rng(1), 40)
    assert (photo == 180).all()
    assert (spotted[40:50, 40:50] != 180).any()
    assert (spotted[:25, :25] == 180).all()
    np.testing.assert_array_equal(
        blemish(photo, np.zeros_like(region), np.random.default_rng(1), 40), photo
    )
