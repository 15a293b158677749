from typing import get_args

import numpy as np
import pytest
from pycocotools import mask as coco

from skinbatch.config import GradingSettings
from skinbatch.grading.counting import Counts
from skinbatch.grading.face import Face, find_face
from skinbatch.grading.grade import Graded, grade
from skinbatch.grading.run_lengths import mask_rle
from skinbatch.grading.schemes import SCHEMES
from skinbatch.types import Detections, View

CLASSES = ("background", "skin", "nose")


def face(nose: bool = True) -> Face:
    labels = np.zeros((100, 100), np.uint8)
    labels[20:80, 20:80] = 1
    if nose:
        labels[44:56, 46:54] = 2
    return find_face(labels, CLASSES, 1000, 1000)


def lesions(left: int, right: int, score: float = 0.9) -> Detections:
    xs = [260.0] * left + [700.0] * right
    ys = 220.0 + 10.0 * np.arange(len(xs)) % 500
    xyxy = np.array(
        [[x, y, x + 8, y + 8] for x, y in zip(xs, ys, strict=True)], np.float32
    ).reshape(-1, 4)
    return Detections(xyxy, np.full(len(xs), score, np.float32), np.zeros(len(xs), np.int64))


def test_the_settings_take_exactly_the_schemes_that_there_are() -> None:
    assert set(get_args(GradingSettings.model_fields["scheme"].annotation)) == set(SCHEMES)


@pytest.mark.parametrize(
    ("count", "level"), [(0, 0), (5, 0), (6, 1), (20, 1), (21, 2), (50, 2), (51, 3), (500, 3)]
)
def test_hayashi_draws_its_lines_after_5_20_and_50(count: int, level: int) -> None:
    assert SCHEMES["hayashi"].level(Counts(count, None, None, {}), "half") == level


def test_a_frontal_photo_is_graded_by_its_worse_half() -> None:
    graded = grade(lesions(6, 5), ("acne",), face(), GradingSettings(), 0.3)
    assert (graded.view, graded.count_total, graded.count_left, graded.count_right) == (
        "frontal",
        11,
        6,
        5,
    )
    assert (graded.grade, graded.grade_level, graded.grade_scheme) == ("moderate", 1, "hayashi")
    assert grade(lesions(5, 5), ("acne",), face(), GradingSettings(), 0.3).grade == "mild"


def test_a_half_view_is_graded_by_all_its_lesions() -> None:
    graded = grade(lesions(5, 5), ("acne",), face(), GradingSettings(view="half"), 0.3)
    assert (graded.view, graded.grade, graded.count_left) == ("half", "moderate", 5)


def test_without_a_nose_the_view_is_half_and_the_halves_are_null() -> None:
    for view in ("auto", "frontal", "half"):
        graded = grade(lesions(5, 5), ("acne",), face(nose=False), GradingSettings(view=view), 0.3)
        assert (graded.view, graded.count_total, graded.grade) == ("half", 10, "moderate")
        assert (graded.count_left, graded.count_right) == (None, None)
        assert {b.side for b in graded.boxes} == {None}


def test_a_close_up_is_graded_by_all_its_lesions_and_marked() -> None:
    labels = np.ones((100, 100), np.uint8)
    labels[40:60, 40:60] = 2
    skin = find_face(labels, CLASSES, 1000, 1000, closeups=True)
    for view in ("auto", "frontal", "half"):
        graded = grade(lesions(5, 5), ("acne",), skin, GradingSettings(view=view), 0.3)
        assert (graded.view, graded.count_total, graded.grade) == ("closeup", 10, "moderate")
        assert graded.grade_scheme == "hayashi-closeup"
        assert (graded.count_left, graded.count_right) == (None, None)
        assert {b.side for b in graded.boxes} == {None}


def test_a_hand_is_neither_counted_nor_graded() -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[20:80, 20:80] = 3
    hand = find_face(labels, (*CLASSES, "body"), 1000, 1000, closeups=True)
    assert grade(Detections.empty(), ("acne",), hand, GradingSettings(), 0.3) == Graded(view="body")


def test_without_a_face_nothing_is_counted_or_graded() -> None:
    nobody = find_face(np.zeros((100, 100), np.uint8), CLASSES, 1000, 1000)
    assert grade(Detections.empty(), ("acne",), nobody, GradingSettings(), 0.3) == Graded()


def test_a_clear_face_is_mild_with_zero_lesions() -> None:
    graded = grade(Detections.empty(), ("acne",), face(), GradingSettings(), 0.3)
    assert (graded.count_total, graded.counts, graded.grade, graded.saturated) == (
        0,
        {"acne": 0},
        "mild",
        False,
    )


def test_the_packs_threshold_holds_unless_the_settings_have_one() -> None:
    detections = lesions(3, 0, score=0.4)
    assert grade(detections, ("acne",), face(), GradingSettings(), 0.5).count_total == 0
    assert (
        grade(detections, ("acne",), face(), GradingSettings(threshold=0.3), 0.5).count_total == 3
    )
    assert (
        grade(detections, ("acne",), face(), GradingSettings(threshold=0.0), 0.5).count_total == 3
    )


def test_counting_by_components_is_chosen_in_the_settings() -> None:
    xyxy = np.array([[300, 300, 320, 320], [310, 310, 330, 330]], np.float32)
    two = Detections(xyxy, np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64), saturated=True)
    graded = grade(two, ("acne",), face(), GradingSettings(counting="components"), 0.3)
    assert (graded.count_total, graded.counts, len(graded.boxes), graded.saturated) == (
        1,
        {"acne": 1},
        2,
        True,
    )


@pytest.mark.parametrize(("view", "level"), [("frontal", 1), ("half", 2)])
def test_the_view_decides_which_count_the_scheme_takes(view: View, level: int) -> None:
    assert SCHEMES["hayashi"].level(Counts(21, 15, 6, {}), view) == level


def test_masks_are_run_lengths_at_displayed_size() -> None:
    labels = np.zeros((10, 20), np.uint8)
    labels[2:5, 4:8] = 1
    labels[6:8, 4:8] = 2
    rle = mask_rle(labels, CLASSES, 200, 50)
    skin = coco.decode({"size": [50, 200], "counts": rle["skin"]})
    assert skin.shape == (50, 200)
    assert skin[10:25, 40:80].all()
    assert skin.sum() == 15 * 40
    assert sum(int(coco.area({"size": [50, 200], "counts": r})) for r in rle.values()) == 200 * 50
