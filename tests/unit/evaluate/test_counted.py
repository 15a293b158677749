"""Counts at other scores are those that the pipeline would have given."""

from __future__ import annotations

import numpy as np
import pytest

from skinbatch.evaluate.counted import counts_at
from skinbatch.evaluate.scored import FoundBoxes
from skinbatch.metrics.boxes import Boxes

NEAR, TOUCHING, FAR, OFF_SKIN = [0, 0, 10, 10], [8, 8, 20, 20], [50, 50, 60, 60], [80, 80, 90, 90]


@pytest.fixture
def found() -> FoundBoxes:
    """Three photos, the second without boxes; the best box of the first is off the skin."""
    boxes = Boxes.stack([[OFF_SKIN, NEAR, TOUCHING, FAR], np.zeros((0, 4)), [NEAR]], [[0.95, 0.9, 0.6, 0.3], [], [0.5]])
    return FoundBoxes(boxes, np.array([False, True, True, True, True]), ("acne",))


def test_each_box_on_the_skin_counts_from_its_score_on(found: FoundBoxes) -> None:
    assert counts_at(found, (0.25, 0.5, 0.75), "boxes").tolist() == [[3, 2, 1], [0, 0, 0], [1, 1, 0]]


def test_connected_pieces_count_once(found: FoundBoxes) -> None:
    assert counts_at(found, (0.25, 0.5, 0.75), "components").tolist() == [[2, 1, 1], [0, 0, 0], [1, 1, 0]]
