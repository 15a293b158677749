"""Recall, average precision and the threshold of the disease classifier, on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from skinbatch.train.classifier import CLASSES, average_precisions, best_threshold, recalls

Scores = NDArray[np.float32]


def case(rows: list[tuple[int | None, dict[int, float]]]) -> tuple[Scores, Scores]:
    """rows: a photo's class and the probabilities that are not 0."""
    probs, truth = np.zeros((len(rows), len(CLASSES)), np.float32), np.zeros((len(rows), len(CLASSES)), np.float32)
    for i, (label, given) in enumerate(rows):
        if label is not None:
            truth[i, label] = 1
        for c, p in given.items():
            probs[i, c] = p
    return probs, truth


def test_average_precision_is_the_mean_precision_at_the_hits() -> None:
    rows: list[tuple[int | None, dict[int, float]]] = [(0, {0: 0.9}), (None, {0: 0.8}), (0, {0: 0.7}), (None, {})]
    rows += [(c, {c: 0.99}) for c in range(1, 6)]
    found = average_precisions(*case(rows))
    assert found["seborrheic_keratosis"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["rosacea"] == 1


def test_recall_wants_the_top_class_and_none_wants_no_class_above_the_threshold() -> None:
    rows: list[tuple[int | None, dict[int, float]]] = [
        (0, {0: 0.6}),
        (0, {0: 0.6, 1: 0.7}),
        (None, {2: 0.4}),
        (None, {2: 0.5}),
    ]
    rows += [(c, {c: 0.9}) for c in range(1, 6)]
    found = recalls(*case(rows), threshold=0.5)
    assert found["seborrheic_keratosis"] == 0.5
    assert found["none"] == 0.5
    assert found["rosacea"] == 1


def test_the_threshold_lies_between_the_sick_and_the_healthy() -> None:
    rows: list[tuple[int | None, dict[int, float]]] = [(c, {c: 0.8}) for c in range(6)]
    rows += [(None, {c: 0.3}) for c in range(6)]
    assert 0.3 < best_threshold(*case(rows)) < 0.8
