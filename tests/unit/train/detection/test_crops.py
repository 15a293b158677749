"""Test that boxes stay on what they mark, whatever is done to the photo."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from skinbatch.train.detection.crops import Changes, Sample, draw, moved
from skinbatch.train.recipe_sections import AugmentSection

ONE = np.array([[40, 60, 60, 84]], np.float32)


def photo(size: tuple[int, int] = (160, 120)) -> Sample:
    """Return a grey photo with a white ellipse in its only box. size: width, height."""
    pixels = np.full((size[1], size[0], 3), 90, np.uint8)
    cv2.ellipse(pixels, (50, 72), (10, 12), 0, 0, 360, (255, 255, 255), -1)
    return Sample(pixels, ONE, np.array([2], np.int64))


def bounds(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the box around the white pixels."""
    rows, columns = np.nonzero(pixels[..., 0] > 180)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"flip": 1.0},
        {"flip_vertical": 1.0},
        {"rotate": 40.0},
        {"shear": 20.0},
        {"scale": (0.7, 1.4)},
        {"stretch": (0.6, 1.6)},
        {"translate": 0.1},
        {"flip": 0.5, "rotate": 15.0, "scale": (0.8, 1.25), "stretch": (0.8, 1.25)},
    ],
)
def test_a_box_goes_where_its_lesion_goes(changes: dict[str, object], whole: bool) -> None:
    seen = 0
    for seed in range(20):
        recipe = Changes(
            160,
            AugmentSection.model_validate(changes | {"on_lesion": 1.0}),
            whole=whole,
            visible=0.99,
        )
        made = draw(photo(), (), np.random.default_rng(seed), recipe)
        assert made.pixels.shape == (160, 160, 3)
        if len(made.boxes):
            np.testing.assert_allclose(made.boxes[0], bounds(made.pixels), atol=2.5)
            assert made.labels.tolist() == [2]
            seen += 1
    assert seen > 5


def test_without_changes_a_whole_photo_lies_in_the_middle_as_it_is() -> None:
    made = draw(
        photo(), (), np.random.default_rng(0), Changes(160, AugmentSection(), fill=(1, 2, 3))
    )
    np.testing.assert_array_equal(made.pixels[20:140], photo().pixels)
    assert (made.pixels[:20] == (1, 2, 3)).all() and (made.pixels[140:] == (1, 2, 3)).all()
    np.testing.assert_allclose(made.boxes, ONE + np.array([0, 20, 0, 20]))


def test_a_part_does_not_leave_a_photo_that_is_larger() -> None:
    for seed in range(20):
        made = draw(
            photo(),
            (),
            np.random.default_rng(seed),
            Changes(64, AugmentSection(), whole=False, fill=(1, 2, 3)),
        )
        assert (made.pixels > 50).all()


def test_a_lesion_that_is_mostly_cut_off_is_none() -> None:
    still = np.eye(2)
    for left, expected in ((-5.0, 1), (-15.0, 0)):
        boxes, kept = moved(
            np.array([[0, 0, 20, 20]], np.float32), still, np.array([left, 0.0]), (64, 64), 0.35
        )
        assert len(boxes) == len(kept) == expected
    assert len(moved(np.zeros((0, 4), np.float32), still, np.zeros(2), (64, 64), 0.35)[0]) == 0


def test_a_lesion_that_is_turned_is_no_larger() -> None:
    turn = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    boxes, _ = moved(np.array([[20, 0, 40, 20]], np.float32), turn, np.zeros(2), (64, 64), 0.35)
    np.testing.assert_allclose(boxes[0, 2:] - boxes[0, :2], [20, 20], atol=1e-5)


def test_four_photos_make_a_mosaic_with_their_lesions_at_full_scale() -> None:
    recipe = Changes(160, AugmentSection(on_lesion=1.0), visible=0.99)
    found = 0
    for seed in range(10):
        made = draw(photo(), [photo()] * 3, np.random.default_rng(seed), recipe)
        assert (
            made.pixels.shape == (160, 160, 3)
            and 0 <= made.boxes.min(initial=0) <= made.boxes.max(initial=0) <= 160
        )
        for box in made.boxes:
            np.testing.assert_allclose(box[2:] - box[:2], (20, 24), atol=1e-3)
            x, y = ((box[:2] + box[2:]) / 2).astype(int)
            assert made.pixels[y, x, 0] == 255
        found += len(made.boxes)
    assert found > 15


def test_the_same_generator_makes_the_same_input() -> None:
    changes = {
        "rotate": 10.0,
        "scale": (0.8, 1.2),
        "colour": 0.5,
        "noise": 5.0,
        "blur": 0.5,
        "jpeg": 0.5,
    }
    recipe = Changes(96, AugmentSection.model_validate(changes), whole=False)
    one, other, another = (
        draw(photo(), (), np.random.default_rng(seed), recipe) for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_array_equal(one.boxes, other.boxes)
    assert (one.pixels != another.pixels).any()
