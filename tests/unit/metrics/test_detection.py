"""Test AP and AR against pycocotools, to the last digit, and against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.boxes import Boxes
from skinbatch.metrics.detection import (
    COCO_MOST,
    IOUS,
    MEAN,
    MOST,
    RECALLS,
    Matches,
    curves,
    detection,
    match,
)
from tests.unit.metrics.support import coco_eval

NO_INTERVALS = Resampling(0)


def random_boxes(rng: Generator, photos: int, most: int, *, coarse: bool) -> tuple[Boxes, Boxes]:
    """Return crowded photos, some without boxes.

    coarse: whole pixels and few scores, so that overlaps and scores are tied.
    """

    def some(number: int) -> NDArray[np.float64]:
        size, corner = rng.uniform(4, 14, (number, 2)), rng.uniform(0, 40, (number, 2))
        boxes = np.concatenate((corner, corner + size), axis=1)
        return boxes.round() if coarse else boxes

    true = [some(int(rng.integers(0, most))) for _ in range(photos)]
    near = [boxes[rng.random(len(boxes)) < 0.8] for boxes in true]
    moved = [
        boxes + (rng.integers(-2, 3, boxes.shape) if coarse else rng.normal(0, 1, boxes.shape))
        for boxes in near
    ]
    found = [np.concatenate((boxes, some(int(rng.integers(0, most))))) for boxes in moved]
    found = [boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)] for boxes in found]
    scores = [rng.integers(1, 8, len(b)) / 8 if coarse else rng.random(len(b)) for b in found]
    labels = [[rng.integers(0, 3, len(b)) for b in boxes] for boxes in (true, found)]
    return Boxes.stack(true, labels=labels[0]), Boxes.stack(found, scores, labels[1])


def random_crowds(rng: Generator, photos: int, *, coarse: bool) -> Boxes:
    """Return up to three regions for each photo, some over each other; most photos that have boxes have one."""

    def some(number: int) -> NDArray[np.float64]:
        size, corner = rng.uniform(8, 30, (number, 2)), rng.uniform(0, 30, (number, 2))
        boxes = np.concatenate((corner, corner + size), axis=1)
        return boxes.round() if coarse else boxes

    regions = [some(int(rng.integers(0, 4))) for _ in range(photos)]
    return Boxes.stack(regions, labels=[rng.integers(0, 3, len(boxes)) for boxes in regions])


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_curves_are_those_of_pycocotools(seed: int, coarse: bool) -> None:
    truth, found = random_boxes(np.random.default_rng(seed), 15, 25, coarse=coarse)
    matches = match(truth, found)
    most = [7, 20, MOST]
    expected = coco_eval(truth, found, by_class=False, most=most)
    for k, number in enumerate(most):
        ours = curves(matches.most(number))
        np.testing.assert_array_equal(ours.precision, expected.eval["precision"][:, :, 0, 0, k])
        np.testing.assert_array_equal(ours.recall, expected.eval["recall"][:, 0, 0, k])


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_curves_beside_crowds_are_those_of_pycocotools(seed: int, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    truth, found = random_boxes(rng, 15, 25, coarse=coarse)
    crowds = random_crowds(rng, 15, coarse=coarse)
    matches = match(truth, found, crowds)
    assert (matches.ignored > 0).any() and ((matches.ignored > 0) & (matches.hits > 0)).any()
    most = [7, 20, MOST]
    expected = coco_eval(truth, found, crowds, by_class=False, most=most)
    for k, number in enumerate(most):
        ours = curves(matches.most(number))
        np.testing.assert_array_equal(ours.precision, expected.eval["precision"][:, :, 0, 0, k])
        np.testing.assert_array_equal(ours.recall, expected.eval["recall"][:, 0, 0, k])


@pytest.mark.parametrize("seed", range(3))
def test_numbers_by_class_beside_crowds_are_those_of_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = random_boxes(rng, 12, 20, coarse=True)
    crowds = random_crowds(rng, 12, coarse=True)
    truth = truth.only(truth.label != 2)  # this class has only crowds, so it has no AP
    classes = {
        str(k): match(*(b.only(b.label == k) for b in (truth, found, crowds))) for k in range(3)
    }
    ours = detection({name: m.most(COCO_MOST) for name, m in classes.items()}, NO_INTERVALS)
    expected = coco_eval(truth, found, crowds, by_class=True, most=[COCO_MOST])
    precision, recall = (
        expected.eval["precision"][:, :, :, 0, 0],
        expected.eval["recall"][:, :, 0, 0],
    )
    for k in range(2):
        assert ours[str(k)]["ap50"].value == pytest.approx(precision[0, :, k].mean(), abs=1e-14)
        assert ours[str(k)]["ap"].value == pytest.approx(precision[:, :, k].mean(), abs=1e-14)
        assert ours[str(k)]["ar"].value == pytest.approx(recall[:, k].mean(), abs=1e-14)
    assert np.isnan(ours["2"]["ap"].value) and (precision[:, :, 2] == -1).all()
    assert ours[MEAN]["ap"].value == pytest.approx(precision[precision > -1].mean(), abs=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_by_class_and_their_mean_are_those_of_pycocotools(seed: int) -> None:
    truth, found = random_boxes(np.random.default_rng(seed), 12, 20, coarse=True)
    # One class that nobody drew: COCO leaves it out of the mean.
    found = Boxes(
        found.photos,
        found.photo,
        found.xyxy,
        np.where(found.label == 2, 3, found.label),
        found.score,
    )
    classes = {
        str(k): match(truth.only(truth.label == k), found.only(found.label == k)) for k in range(4)
    }
    ours = detection({name: m.most(COCO_MOST) for name, m in classes.items()}, NO_INTERVALS)
    expected = coco_eval(truth, found, by_class=True, most=[COCO_MOST])
    precision, recall = (
        expected.eval["precision"][:, :, :, 0, 0],
        expected.eval["recall"][:, :, 0, 0],
    )
    for k in range(3):
        assert ours[str(k)]["ap50"].value == pytest.approx(precision[0, :, k].mean(), abs=1e-14)
        assert ours[str(k)]["ap"].value == pytest.approx(precision[:, :, k].mean(), abs=1e-14)
        assert ours[str(k)]["ar"].value == pytest.approx(recall[:, k].mean(), abs=1e-14)
    assert np.isnan(ours["3"]["ap"].value) and (precision[:, :, 3] == -1).all()
    assert ours[MEAN]["ap"].value == pytest.approx(precision[precision > -1].mean(), abs=1e-14)
    assert ours[MEAN]["ap50"].value == pytest.approx(
        precision[0][precision[0] > -1].mean(), abs=1e-14
    )
    assert ours[MEAN]["ar"].value == pytest.approx(recall[recall > -1].mean(), abs=1e-14)


def test_thresholds_and_recalls_are_those_of_pycocotools() -> None:
    params = COCOeval(iouType="bbox").params
    np.testing.assert_array_equal(IOUS, params.iouThrs)
    np.testing.assert_array_equal(RECALLS, params.recThrs)


TWO = np.array([[0, 0, 10, 10], [20, 20, 30, 30]])


def ap50(
    truth: list[NDArray[np.int_]], found: list[NDArray[np.float64]], most: int = MOST
) -> float:
    """Return AP50. found: rows of x1 y1 x2 y2 score."""
    rows = [np.asarray(boxes, np.float64).reshape(-1, 5) for boxes in found]
    matches = match(
        Boxes.stack(truth), Boxes.stack([r[:, :4] for r in rows], [r[:, 4] for r in rows])
    )
    return detection({"": matches.most(most)}, NO_INTERVALS)[""]["ap50"].value


def test_finding_everything_is_one_and_nothing_is_zero() -> None:
    assert ap50([TWO], [np.array([[0, 0, 10, 10, 0.9], [20, 20, 30, 30, 0.8]])]) == pytest.approx(1)
    assert ap50([TWO], [np.zeros((0, 5))]) == 0


def test_nothing_to_find_is_not_a_number() -> None:
    assert np.isnan(ap50([np.zeros((0, 4), int)], [np.array([[0, 0, 10, 10, 0.9]])]))
    assert np.isnan(ap50([], []))


def test_a_false_box_above_a_true_one_halves_precision() -> None:
    false, true = [50, 50, 60, 60], [0, 0, 10, 10]
    assert ap50([TWO[:1]], [np.array([[*false, 0.9], [*true, 0.8]])]) == pytest.approx(0.5)
    assert ap50([TWO[:1]], [np.array([[*true, 0.9], [*false, 0.8]])]) == pytest.approx(1)


def test_one_of_three_found_reaches_a_third_of_recall() -> None:
    assert ap50(
        [TWO, TWO[:1]], [np.array([[0, 0, 10, 10, 0.9]]), np.zeros((0, 5))]
    ) == pytest.approx(34 / 101)


def test_a_true_box_is_found_once() -> None:
    assert ap50([TWO[:1]], [np.array([[0, 0, 10, 10, 0.9], [0, 0, 10, 10, 0.8]])]) == pytest.approx(
        1
    )
    assert ap50([TWO], [np.array([[0, 0, 10, 10, 0.9], [0, 0, 10, 10, 0.8]])]) == pytest.approx(
        51 / 101
    )


def test_what_is_found_only_in_a_crowd_is_neither_right_nor_wrong() -> None:
    crowd = Boxes.stack([[[40, 40, 80, 80]]])
    inside = [[41, 41, 51, 51], [60, 60, 70, 70], [70, 35, 80, 45]]
    found = Boxes.stack([[*inside, *TWO]], [[0.9, 0.9, 0.9, 0.8, 0.7]])
    matches = match(Boxes.stack([TWO]), found, crowd)
    assert [bin(bits).count("1") for bits in matches.ignored] == [10, 10, 1, 0, 0], (
        "the third has half of itself inside"
    )
    numbers = detection({"": matches}, NO_INTERVALS)[""]
    assert numbers["ap50"].value == pytest.approx(1)
    # From IoU 0.55 on the third is wrong, and comes before two that are right.
    assert numbers["ap"].value == pytest.approx((1 + 9 * 2 / 3) / 10)
    assert matches.truths.tolist() == [2]


def test_a_box_in_a_crowd_takes_its_place_among_the_best_of_its_photo() -> None:
    found = Boxes.stack([[[41, 41, 51, 51], [0, 0, 10, 10]]], [[0.9, 0.8]])
    matches = match(Boxes.stack([TWO[:1]]), found, Boxes.stack([[[40, 40, 80, 80]]]))
    assert detection({"": matches.most(1)}, NO_INTERVALS)[""]["ap50"].value == 0
    assert detection({"": matches.most(2)}, NO_INTERVALS)[""]["ap50"].value == pytest.approx(1)


def test_coco_stops_at_a_hundred_boxes_a_photo_and_we_at_five_hundred() -> None:
    corners = np.array([(x, y) for x in range(0, 300, 20) for y in range(0, 200, 20)])
    boxes = np.concatenate((corners, corners + 10), axis=1)
    found = np.concatenate((boxes, np.linspace(0.9, 0.1, len(boxes))[:, None]), axis=1)
    assert ap50([boxes], [found]) == pytest.approx(1)
    assert ap50([boxes], [found], COCO_MOST) == pytest.approx(67 / 101)


def test_numbers_of_some_photos_are_those_of_these_photos_alone() -> None:
    truth, found = random_boxes(np.random.default_rng(3), 10, 20, coarse=False)
    keep = np.arange(10) % 3 == 0
    some = match(truth, found).of_photos(keep)
    alone = match(_of(truth, keep), _of(found, keep))
    np.testing.assert_array_equal(curves(some).precision, curves(alone).precision)
    np.testing.assert_array_equal(some.truths, alone.truths)


def test_resampled_curves_of_many_hits_are_close_to_those_of_a_step_a_hit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    truth, found = random_boxes(np.random.default_rng(5), 80, 30, coarse=False)
    matches = {"": match(truth, found)}
    exact = detection(matches, Resampling(200))[""]
    monkeypatch.setattr("skinbatch.metrics.detection._STEPS", 300)
    rough = detection(matches, Resampling(200))[""]
    assert 900 < (matches[""].hits > 0).sum() < 1024
    for name, number in exact.items():
        assert rough[name].value == number.value
        assert rough[name].low == pytest.approx(number.low, abs=2e-3)
        assert rough[name].high == pytest.approx(number.high, abs=2e-3)
        assert number.low < number.value < number.high


@pytest.mark.parametrize("with_crowds", [False, True])
def test_a_resample_is_the_ap_of_photos_drawn_again(with_crowds: bool) -> None:
    """Compare intervals, which use weights, with pycocotools over the same draws made into photos."""
    truth, found = random_boxes(np.random.default_rng(8), 12, 12, coarse=False)
    crowds = random_crowds(np.random.default_rng(9), 12, coarse=False)
    crowds = crowds if with_crowds else crowds.only(np.zeros(len(crowds), np.bool_))
    rng = np.random.default_rng(0)
    values = []
    for _ in range(20):
        drawn = rng.integers(0, 12, 12)
        again = [_again(boxes, drawn) for boxes in (truth, found, crowds)]
        run = coco_eval(*again, by_class=False, most=[MOST])
        values.append([run.eval["precision"][0].mean(), run.eval["precision"].mean()])
    low, high = np.percentile(values, (2.5, 97.5), axis=0)
    ours = detection({"": match(truth, found, crowds)}, Resampling(20, seed=0))[""]
    for k, name in enumerate(("ap50", "ap")):
        assert [ours[name].low, ours[name].high] == pytest.approx([low[k], high[k]], abs=1e-12)


def test_boxes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        Boxes(1, np.zeros(2, np.int64), np.zeros((1, 4)), np.zeros(2, np.int64), np.zeros(2))
    with pytest.raises(ValueError, match="ascend"):
        Boxes(2, np.array([1, 0]), np.zeros((2, 4)), np.zeros(2, np.int64), np.zeros(2))
    with pytest.raises(ValueError, match="truth of 1 photos, crowds of 1, boxes of 2"):
        match(Boxes.stack([TWO]), Boxes.stack([TWO, TWO]))
    with pytest.raises(ValueError, match="truth of 1 photos, crowds of 2, boxes of 1"):
        match(Boxes.stack([TWO]), Boxes.stack([TWO]), Boxes.stack([TWO, TWO]))


def _of(boxes: Boxes, keep: NDArray[np.bool_]) -> Boxes:
    kept = boxes.only(keep[boxes.photo])
    number = np.cumsum(keep) - 1
    return Boxes(int(keep.sum()), number[kept.photo], kept.xyxy, kept.label, kept.score)


def _again(boxes: Boxes, drawn: NDArray[np.int64]) -> Boxes:
    parts = [boxes.only(boxes.photo == n) for n in drawn]
    return Boxes.stack([p.xyxy for p in parts], [p.score for p in parts], [p.label for p in parts])


def test_matches_keep_the_order_of_scores() -> None:
    truth, found = random_boxes(np.random.default_rng(1), 5, 9, coarse=True)
    matches: Matches = match(truth, found)
    assert (np.diff(matches.score) <= 0).all()
    tied = np.diff(matches.score) == 0
    assert (np.diff(matches.photo)[tied] >= 0).all()
