"""Test that counting many photos at once gives the same as counting each photo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from skinbatch.grading.arrays import LEFT, NO_SIDE, RIGHT, BoxArrays, count_photos
from skinbatch.grading.counting import ON_SKIN, Method, count_lesions
from skinbatch.types import GradedBox, Side

CLASSES = ("papule", "pustule", "comedone")
SIDES: dict[int, Side | None] = {NO_SIDE: None, LEFT: "left", RIGHT: "right"}


def random_boxes(photos: int, seed: int) -> BoxArrays:
    """Return up to 60 boxes in each photo, crowded enough that many touch."""
    rng = np.random.default_rng(seed)
    photo = np.sort(rng.integers(0, photos, photos * 30))
    corner = rng.uniform(-2, 120, (len(photo), 2))
    size = rng.uniform(0.1, 18, (len(photo), 2))
    with_nose = rng.random(photos) < 0.7
    side = np.where(with_nose[photo], rng.integers(LEFT, RIGHT + 1, len(photo)), NO_SIDE)
    return BoxArrays(
        photo=photo,
        xyxy=np.concatenate([corner, corner + size], axis=1),
        score=rng.integers(1, 20, len(photo)) / 20,
        label=rng.integers(0, len(CLASSES), len(photo)),
        side=side,
        skin_overlap=np.where(rng.random(len(photo)) < 0.1, np.nan, rng.random(len(photo)) + 0.3),
    )


def rows_of(boxes: BoxArrays, photo: int) -> list[GradedBox]:
    rows = []
    for n in np.flatnonzero(boxes.photo == photo):
        overlap = float(boxes.skin_overlap[n])
        x1, y1, x2, y2 = (float(edge) for edge in boxes.xyxy[n])
        rows.append(
            GradedBox(
                x1,
                y1,
                x2,
                y2,
                float(boxes.score[n]),
                CLASSES[boxes.label[n]],
                None if np.isnan(overlap) else overlap,
                SIDES[int(boxes.side[n])],
                False,
            )
        )
    return rows


@pytest.mark.parametrize("method", ["boxes", "components"])
@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_each_photo_alone(method: Method, seed: int) -> None:
    boxes = random_boxes(photos=25, seed=seed)

    found = count_photos(boxes, 26, len(CLASSES), 0.3, method)

    for photo in range(26):
        rows = [
            replace(box, counted=box.score >= 0.3 and (box.skin_overlap or 0) >= ON_SKIN)
            for box in rows_of(boxes, photo)
        ]
        nose = any(row.side is not None for row in rows)
        counts = count_lesions(rows, CLASSES, method, nose=nose)
        assert found.total[photo] == counts.total
        assert found.left[photo] == (counts.left or 0)
        assert found.right[photo] == (counts.right or 0)
        assert found.by_class[photo].tolist() == list(counts.by_class.values())


def test_the_components_of_this_test_are_fewer_than_the_boxes() -> None:
    boxes = random_boxes(photos=25, seed=0)

    by_box = count_photos(boxes, 25, len(CLASSES), 0.3, "boxes").total.sum()
    by_component = count_photos(boxes, 25, len(CLASSES), 0.3, "components").total.sum()

    assert 0 < by_component < 0.9 * by_box


@pytest.mark.parametrize("method", ["boxes", "components"])
def test_photos_without_boxes_count_none(method: Method) -> None:
    none = random_boxes(photos=3, seed=0).only(np.zeros(90, np.bool_))

    found = count_photos(none, 3, 2, 0.3, method)

    assert found.total.tolist() == [0, 0, 0]
    assert found.by_class.shape == (3, 2)
