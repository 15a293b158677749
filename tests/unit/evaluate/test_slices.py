"""Test groups by skin tone and severity."""

from __future__ import annotations

import numpy as np

from skinbatch.evaluate.slices import by_severity, by_tone
from skinbatch.grading.tones import TONES


def test_every_angle_has_one_tone() -> None:
    ita = np.array([90, 55.1, 55, 41.1, 41, 28.1, 28, 10.1, 10, 0, -30, -30.1, -90, np.nan])
    groups = by_tone(ita)
    assert {name: np.flatnonzero(group).tolist() for name, group in groups.items()} == {
        "very light": [0, 1],
        "light": [2, 3],
        "intermediate": [4, 5],
        "tan": [6, 7],
        "brown": [8, 9],
        "dark": [10, 11, 12],
        "unknown": [13],
    }


def test_tones_without_photos_are_left_out_and_the_order_is_from_light_to_dark() -> None:
    assert list(by_tone(np.array([-50.0, 60.0]))) == [TONES[0], TONES[-1]]
    assert by_tone(np.zeros(0)) == {}


def test_photos_whose_severity_nobody_gave_are_in_no_group() -> None:
    groups = by_severity([0, None, 3, 0])
    assert {name: group.tolist() for name, group in groups.items()} == {
        "mild": [True, False, False, True],
        "very severe": [False, False, True, False],
    }
