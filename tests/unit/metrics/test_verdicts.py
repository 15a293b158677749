"""Test that boxes are right, false or missed by the same rules as average precision."""

from __future__ import annotations

import numpy as np

from skinbatch.metrics.boxes import Boxes
from skinbatch.metrics.detection import match
from skinbatch.metrics.verdicts import judge


def boxes_near(of: Boxes, rng: np.random.Generator) -> Boxes:
    """Return shifted copies of some boxes, and others elsewhere, with scores."""
    each, scores = [], []
    for photo in range(of.photos):
        mine = of.xyxy[of.photo == photo]
        kept = mine[rng.random(len(mine)) < 0.8] + rng.normal(0, 4, 4)
        stray = rng.uniform(0, 100, (rng.integers(0, 4), 2))
        each.append(np.concatenate([kept, np.concatenate([stray, stray + 20], axis=1)]))
        scores.append(rng.uniform(0, 1, len(each[-1])).round(1))
    return Boxes.stack(each, scores)


def some_truth(rng: np.random.Generator, photos: int) -> Boxes:
    corners = [rng.uniform(0, 100, (rng.integers(0, 12), 2)) for _ in range(photos)]
    return Boxes.stack([np.concatenate([corner, corner + 20], axis=1) for corner in corners])


def test_right_boxes_are_the_hits_of_the_matching() -> None:
    rng = np.random.default_rng(5)
    truth = some_truth(rng, 60)
    found = boxes_near(truth, rng)

    verdicts = judge(truth, found)

    matches = match(truth, found)
    for photo in range(truth.photos):
        hits = (matches.hits[matches.photo == photo] & 1).astype(bool)
        scores = np.sort(matches.score[matches.photo == photo][hits])
        mine = verdicts.right & (found.photo == photo)
        np.testing.assert_array_equal(np.sort(found.score[mine]), scores)
        assert verdicts.taken[truth.photo == photo].sum() == mine.sum()
    assert 0 < verdicts.right.sum() < len(found)
    assert 0 < verdicts.taken.sum() < len(truth)


def test_a_box_in_a_crowd_is_neither_right_nor_false() -> None:
    found = Boxes.stack(
        [np.array([[0, 0, 10, 10], [12, 0, 22, 10], [80, 80, 90, 90]])], [[0.9, 0.8, 0.7]]
    )
    truth = Boxes.stack([np.array([[0, 0, 10, 10]])])
    crowd = Boxes.stack([np.array([[0, 0, 40, 40]])])

    verdicts = judge(truth, found, crowd)

    assert verdicts.right.tolist() == [True, False, False]
    assert verdicts.ignored.tolist() == [False, True, False]


def test_photos_without_boxes_on_one_side_have_none_right() -> None:
    one, none = Boxes.stack([np.array([[0, 0, 10, 10]])]), Boxes.stack([()])

    assert judge(one, none).taken.tolist() == [False]
    assert judge(none, one).right.tolist() == [False]
