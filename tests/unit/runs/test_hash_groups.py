"""Test that loose photos keep their units while an archive grows."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from skinbatch.runs.hash_groups import first_bits, key_hash, split, target_size


def hashes(n: int) -> NDArray[np.uint64]:
    return np.sort(np.array([key_hash(f"{k:05d}.png") for k in range(n)], np.uint64))


@pytest.mark.parametrize(
    ("photos", "target"), [(1, 8), (283, 8), (2000, 62), (70_000, 512), (10_000_000, 512)]
)
def test_groups_aim_at_512_photos_and_at_a_32nd_of_small_archives(photos: int, target: int) -> None:
    assert target_size(photos) == target


@pytest.mark.parametrize("photos", [1, 7, 283, 3000, 70_000])
def test_every_photo_is_in_exactly_one_group(photos: int) -> None:
    values = hashes(photos)
    groups = split(values, first_bits(photos), [])
    assert groups[0][1] == 0
    assert groups[-1][2] == photos
    assert all(a[2] == b[1] for a, b in pairwise(groups))
    for name, start, stop in groups:
        assert all(f"{int(v):064b}".startswith(name) for v in values[start:stop])
        assert stop - start <= 2 * target_size(photos)


def test_283_photos_make_about_32_units() -> None:
    assert 24 <= len(split(hashes(283), first_bits(283), [])) <= 40


def test_a_group_over_twice_its_target_splits_by_one_more_bit_and_the_others_stay() -> None:
    values = hashes(64)
    before = [g for g, _, _ in split(values, first_bits(64), [])]
    crowded = before[0]
    more = np.array(
        [int(crowded.ljust(64, "0"), 2) + (k << (64 - len(crowded) - 6)) for k in range(40)],
        np.uint64,
    )
    after = [
        g for g, _, _ in split(np.sort(np.concatenate([values, more])), first_bits(64), before)
    ]
    assert set(before) - set(after) == {crowded}
    assert all(g.startswith(crowded) for g in set(after) - set(before))


def test_groups_never_merge_when_photos_go() -> None:
    values = hashes(300)
    before = [g for g, _, _ in split(values, first_bits(300), [])]
    after = [g for g, _, _ in split(values[::10], first_bits(300), before)]
    assert set(after) <= set(before)


def test_a_group_that_was_empty_comes_back_under_the_name_it_would_have_had() -> None:
    values = hashes(300)
    before = [g for g, _, _ in split(values, first_bits(300), [])]
    without_first = [g for g in before if g != before[0]]
    assert [g for g, _, _ in split(values, first_bits(300), without_first)] == before
