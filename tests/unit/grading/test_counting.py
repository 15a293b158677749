import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skinbatch.grading.counting import count_lesions, mark_boxes, skin_overlaps
from skinbatch.grading.face import Face
from skinbatch.types import Detections, GradedBox, Side

CLASSES = ("papule", "nodule")


def face(nose_x: float | None = 500.0) -> Face:
    """Return a photo of 1000 x 1000 whose skin is the square from 200 to 800, on a label map of a tenth of that."""
    mask = np.zeros((100, 100), np.bool_)
    mask[20:80, 20:80] = True
    nose = None if nose_x is None else (nose_x, 500.0)
    return Face(
        1000, 1000, mask, True, 1, 0.36, (152, 152, 848, 848), nose, "frontal" if nose else "half"
    )


def found(
    *boxes: tuple[float, float, float, float], scores: list[float] | None = None
) -> Detections:
    count = len(boxes)
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(
        xyxy, np.array(scores or [0.9] * count, np.float32), np.zeros(count, np.int64)
    )


def row(
    x1: float, y1: float, x2: float, y2: float, label: str = "papule", side: Side | None = None
) -> GradedBox:
    return GradedBox(x1, y1, x2, y2, 0.9, label, 1.0, side, True)


def test_a_box_on_the_skin_counts_and_one_beside_it_is_kept_and_marked() -> None:
    on, off = mark_boxes(found((400, 400, 420, 420), (100, 400, 120, 420)), CLASSES, face(), 0.3)
    assert (on.counted, on.skin_overlap) == (True, 1.0)
    assert (off.counted, off.skin_overlap) == (False, 0.0)


def test_only_the_centre_of_a_box_has_to_be_on_the_skin() -> None:
    inside, outside = mark_boxes(
        found((190, 400, 214, 420), (186, 400, 210, 420)), CLASSES, face(), 0.3
    )
    assert inside.counted
    assert not outside.counted


def test_the_overlap_is_the_share_of_the_middle_half() -> None:
    overlap = skin_overlaps(np.array([[160, 400, 240, 440]], np.float32), face())
    assert overlap.tolist() == [0.5]


def test_boxes_at_the_photos_edge_are_measured_too() -> None:
    assert skin_overlaps(
        np.array([[990, 990, 1000, 1000], [0, 0, 0.5, 0.5]], np.float32), face()
    ).tolist() == [0, 0]


def test_the_threshold_itself_counts_and_less_does_not() -> None:
    boxes = found((400, 400, 420, 420), (500, 500, 520, 520), scores=[0.5, 0.25])

    def counted(threshold: float) -> list[bool]:
        return [box.counted for box in mark_boxes(boxes, CLASSES, face(), threshold)]

    assert counted(0.5) == [True, False]
    assert counted(0.25) == [True, True]
    assert counted(0.51) == [False, False]


def test_boxes_are_listed_by_falling_score() -> None:
    boxes = mark_boxes(
        found((1, 1, 9, 9), (400, 400, 420, 420), scores=[0.2, 0.8]), CLASSES, face(), 0.1
    )
    assert [round(b.score, 1) for b in boxes] == [0.8, 0.2]


def test_sides_are_told_apart_at_the_nose_not_at_the_photos_middle() -> None:
    boxes = mark_boxes(
        found((400, 400, 420, 420), (300, 400, 320, 420)), CLASSES, face(nose_x=350), 0.3
    )
    assert [b.side for b in boxes] == ["right", "left"]
    counts = count_lesions(boxes, CLASSES, "boxes", nose=True)
    assert (counts.total, counts.left, counts.right) == (2, 1, 1)


def test_without_a_nose_there_are_no_sides() -> None:
    boxes = mark_boxes(found((400, 400, 420, 420)), CLASSES, face(nose_x=None), 0.3)
    counts = count_lesions(boxes, CLASSES, "boxes", nose=False)
    assert boxes[0].side is None
    assert (counts.total, counts.left, counts.right) == (1, None, None)


def test_a_photo_without_lesions_has_zeros_in_every_class() -> None:
    counts = count_lesions((), CLASSES, "components", nose=True)
    assert (counts.total, counts.left, counts.right, counts.by_class) == (
        0,
        0,
        0,
        {"papule": 0, "nodule": 0},
    )


def test_boxes_that_do_not_count_are_not_counted() -> None:
    boxes = mark_boxes(found((400, 400, 420, 420), (500, 500, 520, 520)), CLASSES, face(), 0.95)
    assert count_lesions(boxes, CLASSES, "boxes", nose=True).total == 0


def test_overlapping_boxes_are_one_component_and_two_boxes() -> None:
    boxes = (row(10, 10, 30, 30), row(20, 20, 40, 40), row(100, 100, 120, 120))
    assert count_lesions(boxes, CLASSES, "boxes", nose=False).total == 3
    assert count_lesions(boxes, CLASSES, "components", nose=False).total == 2


def test_a_chain_of_boxes_is_one_component_whatever_their_order() -> None:
    chain = [row(20 * n, 0, 20 * n + 25, 20) for n in (0, 2, 4, 1, 3)]
    assert count_lesions(chain, CLASSES, "components", nose=False).total == 1


def test_a_component_has_the_class_and_side_of_most_of_its_boxes() -> None:
    boxes = (
        row(10, 10, 30, 30, "nodule", "left"),
        row(20, 20, 40, 40, "papule", "right"),
        row(30, 30, 50, 50, "papule", "right"),
    )
    counts = count_lesions(boxes, CLASSES, "components", nose=True)
    assert counts.by_class == {"papule": 1, "nodule": 0}
    assert (counts.left, counts.right) == (0, 1)


def test_the_best_box_decides_for_its_component_when_classes_tie() -> None:
    weak = GradedBox(10, 10, 30, 30, 0.4, "papule", 1.0, None, True)
    strong = GradedBox(20, 20, 40, 40, 0.8, "nodule", 1.0, None, True)
    assert count_lesions((weak, strong), CLASSES, "components", nose=False).by_class["nodule"] == 1


edges = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 15), st.integers(1, 15))


@settings(deadline=None)
@given(st.lists(edges, max_size=25))
def test_components_are_those_of_the_drawn_mask(
    rectangles: list[tuple[int, int, int, int]],
) -> None:
    drawn = np.zeros((80, 80), np.uint8)
    for x, y, w, h in rectangles:
        drawn[y : y + h, x : x + w] = 1
    pieces = cv2.connectedComponents(drawn, connectivity=8)[0] - 1
    boxes = [row(x, y, x + w, y + h) for x, y, w, h in rectangles]
    assert count_lesions(boxes, CLASSES, "components", nose=False).total == pieces


@pytest.mark.parametrize("method", ["boxes", "components"])
def test_sides_and_classes_each_add_up_to_the_total(method: str) -> None:
    rng = np.random.default_rng(7)
    corners = rng.uniform(200, 780, (60, 2)).astype(np.float32)
    detections = Detections(
        np.hstack([corners, corners + 20]),
        rng.uniform(0, 1, 60).astype(np.float32),
        rng.integers(0, 2, 60),
    )
    boxes = mark_boxes(detections, CLASSES, face(), 0.2)
    counts = count_lesions(
        boxes, CLASSES, "boxes" if method == "boxes" else "components", nose=True
    )
    assert counts.left is not None
    assert counts.right is not None
    assert counts.total == counts.left + counts.right == sum(counts.by_class.values()) > 10
