"""Test that anchors are where the boxes are, the same at every call, and cover more the more there are."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from skinbatch.models.detectors.anchors import fit_anchors, mean_iou, size_iou

CENTRES = np.array([[10, 10], [40, 20], [30, 90], [120, 100]], float)


def planted(each: int = 60) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    return np.concatenate([c * rng.uniform(0.92, 1.08, (each, 2)) for c in CENTRES])


def test_iou_of_sizes_by_hand() -> None:
    iou = size_iou(np.array([[10.0, 20.0]]), np.array([[10.0, 20.0], [20.0, 10.0], [5.0, 10.0]]))
    np.testing.assert_allclose(iou, [[1, 100 / 300, 50 / 200]])


@pytest.mark.parametrize("seed", range(5))
def test_planted_clusters_are_found_whatever_the_seed(seed: int) -> None:
    np.testing.assert_allclose(fit_anchors(planted(), 4, seed), CENTRES, rtol=0.03)


def test_a_cluster_of_few_boxes_is_found_beside_a_large_one() -> None:
    rng = np.random.default_rng(1)
    wh = np.concatenate(
        [rng.uniform(0.9, 1.1, (2000, 2)) * 20, rng.uniform(0.9, 1.1, (200, 2)) * (200, 50)]
    )
    np.testing.assert_allclose(fit_anchors(wh, 2)[1], (200, 50), rtol=0.1)


def test_the_same_seed_gives_the_same_anchors() -> None:
    np.testing.assert_array_equal(fit_anchors(planted(), 7, 3), fit_anchors(planted(), 7, 3))


def test_more_anchors_cover_more() -> None:
    wh = np.random.default_rng(2).lognormal(3, 0.5, (800, 2))
    covered = [mean_iou(wh, fit_anchors(wh, k)) for k in range(1, 13)]
    assert (np.diff(covered) > 0).all()
    assert covered[0] < 0.6 < 0.75 < covered[-1] < 1


def test_as_many_anchors_as_different_boxes_cover_all_of_them() -> None:
    wh = np.repeat([[10.0, 20.0], [30.0, 30.0], [50.0, 5.0]], 4, axis=0)
    anchors = fit_anchors(wh, 3)
    assert mean_iou(wh, anchors) == 1
    assert anchors.tolist() == [[10, 20], [50, 5], [30, 30]]
    with pytest.raises(ValueError, match="4 anchors from 3 different boxes"):
        fit_anchors(wh, 4)


def test_a_few_huge_boxes_do_not_draw_an_anchor_away_from_the_many() -> None:
    wh = np.concatenate([np.full((50, 2), 20.0), np.full((3, 2), 500.0)])
    assert fit_anchors(wh, 1).tolist() == [[20, 20]]
