"""Test what segmenters and classifiers are shown and how they are judged, on photos with known answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from skinbatch.annotations.masks import UNSURE
from skinbatch.models.stages import ClassifierStage, SegmenterStage
from skinbatch.train.classification.task import (
    ClassedPhoto,
    ClassifierTask,
    PhotoSamples,
    Threshold,
    best_threshold,
    choose,
    class_weights,
    naming_threshold,
    window_of,
)
from skinbatch.train.classification.training import _groups, measure
from skinbatch.train.photos.photo_store import FaceCut, PhotoStore, StoredPhoto, working_size
from skinbatch.train.recipe import UNHASHED
from skinbatch.train.recipe_data import DataSection
from skinbatch.train.recipe_sections import AugmentSection, CalibrationSection, ScheduleSection
from skinbatch.train.segmentation.task import FaceSamples, LabelledPhoto, SegmenterTask, swapped
from skinbatch.train.segmentation.training import class_table, pixel_weights

MEMORY = 1 << 24
# ImageNet's mean, with which the area outside of a photo is filled.
FILL = (124, 116, 104)
CPU = torch.device("cpu")
FACE_PARTS = ("background", "skin", "nose")


def segmenter(classes: tuple[str, ...] = FACE_PARTS) -> SegmenterStage:
    return SegmenterStage(arch="bisenet-light", classes=classes, size=64, sha256=UNHASHED)


def data(**how: object) -> DataSection:
    return DataSection.model_validate(
        {"train": [{"truth": "."}], "valid_share": 0.5} | how, strict=False
    )


@pytest.fixture
def face(tmp_path: Path) -> LabelledPhoto:
    """Return a face of discs: black hair (number 13), grey skin, a dark eye on its left (4), a white nose."""
    numbers = np.zeros((80, 64), np.uint8)
    cv2.circle(numbers, (32, 40), 28, (13,), -1)
    cv2.circle(numbers, (32, 44), 22, (1,), -1)
    cv2.circle(numbers, (44, 36), 5, (4,), -1)
    cv2.circle(numbers, (32, 46), 5, (2,), -1)
    greys = np.zeros(256, np.uint8)
    greys[[1, 2, 4]] = 100, 200, 50
    Image.fromarray(np.repeat(greys[numbers][..., None], 3, axis=2)).save(tmp_path / "face.png")
    png = cv2.imencode(".png", numbers)[1].tobytes()
    return LabelledPhoto(StoredPhoto("face", tmp_path / "face.png"), png)


class Reads(nn.Module):
    """Give the class of every pixel by its grey, like a network that has learned everything.

    greys: grey of each class. shift: number of pixels by which it is off.
    """

    def __init__(self, greys: list[list[float]], shift: int = 0) -> None:
        super().__init__()
        self.greys, self.shift = greys, shift

    def forward(self, x: Tensor) -> Tensor:
        grey = (x.mean(1) * 0.226 + 0.449) * 255
        off = [torch.stack([(grey - one).abs() for one in mine]).amin(0) for mine in self.greys]
        return torch.roll(-torch.stack(off, dim=1), self.shift, 3)


# The greys of background (with hair and eyes), skin and nose.
GREYS = [[0.0, 50.0], [100.0], [200.0]]


def test_classes_of_the_truth_become_the_models_and_the_rest_is_background() -> None:
    table = class_table(("background", "nose", "skin"), data())
    assert (table[1], table[2], table[0], table[13], table[18]) == (2, 1, 0, 0, 0)
    brows = class_table(
        ("background", "skin", "nose"), data(map={"left_brow": "skin", "right_brow": "skin"})
    )
    assert (brows[6], brows[7], brows[4]) == (1, 1, 0)


def test_in_a_mirror_the_left_eye_is_the_right_one() -> None:
    classes = ("background", "skin", "nose", "left_eye", "right_eye", "left_brow")
    assert swapped(classes)[:6].tolist() == [0, 1, 2, 4, 3, 5]


def test_a_view_of_a_face_has_the_label_of_every_pixel(face: LabelledPhoto) -> None:
    classes = ("background", "skin", "nose", "left_eye", "right_eye")
    stage = segmenter(classes)
    samples = FaceSamples(
        [face], class_table(classes, data()), stage, AugmentSection(flip=1.0), MEMORY
    )
    square, labels = samples.sample(0, np.random.default_rng(0))
    assert (square.shape, labels.shape) == ((64, 64, 3), (64, 64))
    assert (labels == 4).sum() > 20
    assert not (labels == 3).any()
    inside = cv2.erode((labels == 4).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert abs(float(square[inside].mean()) - 50) < 6


def test_before_another_background_the_person_and_its_labels_stay(face: LabelledPhoto) -> None:
    table = class_table(FACE_PARTS, data())
    plain = FaceSamples([face], table, segmenter(), AugmentSection(), MEMORY)
    scene = FaceSamples([face], table, segmenter(), AugmentSection(scene=1.0), MEMORY)
    backgrounds = [scene.sample(0, np.random.default_rng(seed)) for seed in range(6)]
    for square, labels in backgrounds:
        nose = cv2.erode((labels == 2).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        if nose.any():
            assert abs(float(square[nose].mean()) - 200) < 8
    means = [float(square[labels == 0].mean()) for square, labels in backgrounds]
    assert min(means) > 40
    assert plain.sample(0, np.random.default_rng(0))[0][0, 0].tolist() == [0, 0, 0]


def test_a_segmenter_that_is_right_has_a_dice_of_one_and_one_that_is_shifted_less(
    face: LabelledPhoto,
) -> None:
    table = class_table(FACE_PARTS, data())
    samples = FaceSamples([face], table, segmenter(), AugmentSection(), MEMORY)
    task = SegmenterTask(samples, [face, face], table, segmenter(), MEMORY)
    right = task.evaluate(Reads(GREYS), CPU)
    assert min(right["dice background"], right["dice skin"], right["dice nose"]) > 0.85
    assert right["score"] == pytest.approx((right["dice skin"] + right["dice nose"]) / 2, abs=1e-3)
    assert task.evaluate(Reads(GREYS, shift=6), CPU)["dice nose"] < 0.6
    assert task.pixels(Reads(GREYS), CPU)[:, :, 1].sum(1).tolist() == [80 * 64] * 2


def test_what_is_unsure_is_neither_learned_nor_judged(face: LabelledPhoto) -> None:
    numbers = face.numbers()
    numbers[:, :32] = UNSURE
    half = LabelledPhoto(face.photo, cv2.imencode(".png", numbers)[1].tobytes())
    table = class_table(FACE_PARTS, data())
    task = SegmenterTask(
        FaceSamples([half], table, segmenter(), AugmentSection(), MEMORY),
        [half],
        table,
        segmenter(),
        MEMORY,
    )
    assert int(task.pixels(Reads(GREYS), CPU)[0, :, 1].sum()) == 80 * 32

    classes = torch.from_numpy(task.samples.sample(0, np.random.default_rng(0))[1])[None]
    assert (classes == UNSURE).any()
    logits = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    other = torch.where((classes == UNSURE)[:, None], torch.full((), 50.0), logits)
    losses = [task.loss(Says(made), made, classes) for made in (logits, other)]
    assert losses[0] > 0
    assert losses[0] == losses[1]
    nothing = task.loss(Says(logits), logits, torch.full_like(classes, UNSURE))
    assert float(nothing) == 0


class Says(nn.Module):
    """Give the same logits three times, as BiSeNet does in training."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.logits, self.logits, self.logits


def test_a_close_up_shows_skin_without_an_outline_and_leaves_the_neck_out(
    face: LabelledPhoto,
) -> None:
    numbers = face.numbers()
    numbers[numbers == 13] = 17  # the hair becomes neck
    necked = LabelledPhoto(face.photo, cv2.imencode(".png", numbers)[1].tobytes())
    classes = (*FACE_PARTS, "body")
    table = class_table(classes, data(map={"neck": "body"}))
    samples = FaceSamples([necked], table, segmenter(classes), AugmentSection(closeup=1.0), MEMORY)
    views = [samples.sample(0, np.random.default_rng(seed))[1] for seed in range(30)]
    assert not any((labels == 3).any() for labels in views)
    assert any((labels == UNSURE).any() for labels in views)
    assert np.median([float(np.isin(labels, (1, 2)).mean()) for labels in views]) > 0.8
    whole = FaceSamples([necked], table, segmenter(classes), AugmentSection(), MEMORY)
    assert (whole.sample(0, np.random.default_rng(0))[1] == 3).any()


def test_an_ear_is_skin_where_a_close_up_shows_it(face: LabelledPhoto) -> None:
    numbers = np.zeros((80, 64), np.uint8)
    numbers[10:70, 12:52] = 8
    eared = LabelledPhoto(face.photo, cv2.imencode(".png", numbers)[1].tobytes())
    table = class_table(FACE_PARTS, data())
    near = FaceSamples([eared], table, segmenter(), AugmentSection(closeup=1.0), MEMORY)
    seen = np.concatenate(
        [near.sample(0, np.random.default_rng(seed))[1].ravel() for seed in range(10)]
    )
    assert (seen == 1).mean() > 0.5
    own = (*FACE_PARTS, "left_ear", "right_ear")
    told = FaceSamples(
        [eared], class_table(own, data()), segmenter(own), AugmentSection(closeup=1.0), MEMORY
    )
    assert set(np.unique(told.sample(0, np.random.default_rng(0))[1])) <= {0, 3, 4}
    whole = FaceSamples([eared], table, segmenter(), AugmentSection(), MEMORY)
    assert not whole.sample(0, np.random.default_rng(0))[1].any()


def test_a_photo_that_is_all_skin_is_put_before_no_other_background(face: LabelledPhoto) -> None:
    skin = LabelledPhoto(face.photo, cv2.imencode(".png", np.ones((80, 64), np.uint8))[1].tobytes())
    table = class_table(FACE_PARTS, data())
    scene = AugmentSection(scene=1.0, closeup=1.0)
    samples = FaceSamples([skin], table, segmenter(), scene, MEMORY)
    plain = FaceSamples([skin], table, segmenter(), AugmentSection(), MEMORY)
    square, labels = samples.sample(0, np.random.default_rng(0))
    expected, of_labels = plain.sample(0, np.random.default_rng(0))
    assert (square == expected).all()
    assert (labels == of_labels).all()


def test_the_score_of_several_sources_is_the_mean_of_theirs(face: LabelledPhoto) -> None:
    table = class_table(FACE_PARTS, data())
    samples = FaceSamples([face], table, segmenter(), AugmentSection(), MEMORY)
    flat = LabelledPhoto(
        face.photo, cv2.imencode(".png", np.ones((80, 64), np.uint8))[1].tobytes(), "flat"
    )
    valid = [replace(face, source="faces"), replace(face, source="faces"), flat]
    found = SegmenterTask(samples, valid, table, segmenter(), MEMORY).evaluate(Reads(GREYS), CPU)
    assert found["score faces"] > found["score flat"] > 0
    assert found["score"] == pytest.approx(
        (found["score faces"] + found["score flat"]) / 2, abs=1e-4
    )


def test_rare_pixels_weigh_more_and_all_together_one(face: LabelledPhoto) -> None:
    table = class_table(FACE_PARTS, data())
    weights = pixel_weights([face], table, 3, ScheduleSection(epochs=1, class_weights="balanced"))
    assert weights is not None
    counts = np.bincount(table[face.numbers()].ravel(), minlength=3)
    assert weights[2] > weights[1]
    assert float(np.dot(weights, counts) / counts.sum()) == pytest.approx(1)
    assert pixel_weights([face], table, 3, ScheduleSection(epochs=1)) is None


def classifier(
    outputs: str = "logistic", classes: tuple[str, ...] = ("dark", "bright")
) -> ClassifierStage:
    return ClassifierStage(
        arch="timm", backbone="regnety_002", classes=classes, size=32, outputs=outputs, sha256=UNHASHED  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def greys(tmp_path: Path) -> list[ClassedPhoto]:
    """Return dark and bright photos, and grey ones of no class, all with a white mark in the lower left quarter."""
    found = []
    for n, grey in enumerate((20, 30, 40, 120, 130, 215, 225, 235)):
        rgb = np.full((48, 60, 3), grey, np.uint8)
        rgb[24:, :30] = 255 - grey
        Image.fromarray(rgb).save(tmp_path / f"{n}.png")
        classes = ("dark",) if grey < 100 else ("bright",) if grey > 200 else ()
        found.append(
            ClassedPhoto(
                StoredPhoto(str(n), tmp_path / f"{n}.png"),
                classes,
                ((0.5, 0, 1, 1), (0, 0, 1, 0.5)),
            )
        )
    return found


class Brightness(nn.Module):
    """Give logits for dark and bright."""

    def forward(self, x: Tensor) -> Tensor:
        grey = (x.mean((1, 2, 3)) * 0.226 + 0.449) * 255
        return torch.stack([(80 - grey) / 10, (grey - 170) / 10], dim=1)


def test_no_view_shows_what_windows_leave_out(greys: list[ClassedPhoto]) -> None:
    samples = PhotoSamples(greys, classifier(), AugmentSection(scale=(0.8, 1.3), crop=0.8), MEMORY)
    for seed in range(20):
        square, target = samples.sample(0, np.random.default_rng(seed))
        assert square.max() <= max(FILL)
        assert target.tolist() == [1, 0]


def test_a_window_is_a_part_in_shares_of_the_photo() -> None:
    photo = np.arange(40 * 60 * 3, dtype=np.uint32).astype(np.uint8).reshape(40, 60, 3)
    assert (window_of(photo, (0.5, 0.25, 1, 1)) == photo[10:, 30:]).all()
    assert window_of(photo, (0.999, 0.999, 1, 1)).shape == (1, 1, 3)


def test_a_classifier_that_is_right_scores_one_and_the_threshold_tells_none_apart(
    greys: list[ClassedPhoto],
) -> None:
    samples = PhotoSamples(greys, classifier(), AugmentSection(), MEMORY)
    task = ClassifierTask(samples, greys, classifier(), MEMORY)
    assert task.evaluate(Brightness(), CPU)["score"] == 1
    probability = task.probabilities(Brightness(), CPU)
    assert (probability[:3, 0] > 0.9).all()
    assert (probability[3:5] < 0.1).all()
    seen, truth = task.of_views(Brightness(), 2, 0, 100, CPU)
    assert (len(seen), truth.sum(0).tolist()) == (16, [6, 6])
    chosen = choose(probability, best_threshold(seen, truth), several=False)
    assert chosen.sum(0).tolist() == [3, 3]


def test_balanced_sampling_shows_each_class_as_often_and_none_as_all_of_them(
    greys: list[ClassedPhoto],
) -> None:
    many = [*greys, *(greys[0],) * 20]
    samples = PhotoSamples(many, classifier(), AugmentSection(), MEMORY)
    task = ClassifierTask(samples, greys, classifier(), MEMORY, sampling="balanced")
    rng = np.random.default_rng(0)
    seen = np.array([task.samples.sample(0, rng)[1] for _ in range(2000)])
    assert seen.mean(axis=0) == pytest.approx([0.25, 0.25], abs=0.04)
    assert (seen.sum(axis=1) == 0).mean() == pytest.approx(0.5, abs=0.04)
    assert len(task.samples) == len(many)
    plain = ClassifierTask(samples, greys, classifier(), MEMORY)
    assert plain.samples.sample(3, rng)[1].tolist() == [0, 0]


def test_the_threshold_is_the_lowest_that_keeps_negatives_unnamed_and_the_named_right() -> None:
    probability = np.array(
        [[0.9, 0], [0.8, 0], [0.7, 0], [0.6, 0], [0.5, 0], [0.4, 0], [0.3, 0], [0.1, 0]]
    )
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 0], [1, 0], [0, 1], [0, 0], [0, 0]], np.bool_)
    negatives = [None, None, None, "faces", None, None, "faces", "faces"]
    asked = CalibrationSection(none_kept=0.6, named_right=0.6)
    assert naming_threshold(probability, truth, negatives, asked) == Threshold(0.41, True)
    strict = CalibrationSection(none_kept=1.0, named_right=0.7)
    assert naming_threshold(probability, truth, negatives, strict) == Threshold(0.71, True)
    impossible = naming_threshold(
        probability, ~truth, negatives, CalibrationSection(none_kept=1, named_right=1)
    )
    assert not impossible.holds


def test_classes_apart_are_not_in_the_score(greys: list[ClassedPhoto]) -> None:
    samples = PhotoSamples(greys, classifier(), AugmentSection(), MEMORY)

    class DarkIsWrong(Brightness):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.tensor([-1.0, 1.0])

    wrong = ClassifierTask(samples, greys, classifier(), MEMORY).evaluate(DarkIsWrong(), CPU)
    apart = ClassifierTask(samples, greys, classifier(), MEMORY, apart=("dark",)).evaluate(
        DarkIsWrong(), CPU
    )
    assert wrong["score"] < 0.8
    assert (apart["score"], apart["AP dark"]) == (1, wrong["AP dark"])


@pytest.mark.parametrize("outputs", ["logistic", "softmax"])
def test_the_loss_is_least_for_the_right_answer_and_smoothing_forbids_certainty(
    greys: list[ClassedPhoto], outputs: str
) -> None:
    stage = classifier(outputs)
    samples = PhotoSamples([p for p in greys if p.classes], stage, AugmentSection(), MEMORY)
    task = ClassifierTask(samples, greys, stage, MEMORY)
    smooth = ClassifierTask(samples, greys, stage, MEMORY, smoothing=0.2)
    y = torch.tensor([[1.0, 0.0]])

    def loss(of: ClassifierTask, logits: list[float]) -> float:
        return float(of.loss(lambda x: torch.tensor([logits]), torch.zeros(1), y))  # type: ignore[arg-type]

    assert loss(task, [9, -9]) < loss(task, [1, -1]) < loss(task, [-1, 1])
    assert loss(smooth, [9, -9]) > loss(smooth, [2, -2])


def test_weights_of_classes_make_up_for_their_numbers() -> None:
    truth = np.array([[1, 0]] * 6 + [[0, 1]] * 2 + [[0, 0]] * 4, np.float32)
    assert class_weights(truth, True, "balanced") == pytest.approx([8 / 12, 2])
    assert class_weights(truth, False, "balanced") == pytest.approx([1, 5])
    assert class_weights(truth, False, "sqrt") == pytest.approx([1, 5**0.5])
    assert class_weights(truth, False, "none") is None


def test_a_photo_is_cut_and_masked_as_the_scorer_would(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(1, 255, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    skin = np.zeros((20, 30), np.uint8)
    skin[:, 10:] = 255
    png = cv2.imencode(".png", skin)[1].tobytes()
    assert (
        StoredPhoto("a", tmp_path / "a.png", FaceCut((5, 10, 35, 30))).pixels() == rgb[10:30, 5:35]
    ).all()
    masked = StoredPhoto("a", tmp_path / "a.png", FaceCut((5, 10, 35, 30), png)).pixels()
    assert (masked[:, 10:] == rgb[10:30, 15:35]).all()
    assert not masked[:, :10].any()


def test_photos_beyond_the_memory_are_read_each_time_and_are_the_same(tmp_path: Path) -> None:
    for n in range(3):
        Image.fromarray(np.full((200, 300, 3), 80 * n, np.uint8)).save(tmp_path / f"{n}.png")
    photos = [StoredPhoto(str(n), tmp_path / f"{n}.png") for n in range(3)]
    one = working_size(photos[0].pixels(), 50).nbytes
    assert working_size(photos[0].pixels(), 50).shape == (75, 112, 3)
    assert working_size(photos[0].pixels(), 150).shape == (200, 300, 3)
    store = PhotoStore(photos, lambda n, pixels: working_size(pixels, 50), memory=one + 1)
    (tmp_path / "0.png").unlink()
    assert [int(store[n].mean()) for n in range(3)] == [0, 80, 160]
    assert [int(pixels.mean()) for pixels in store] == [0, 80, 160]


def test_intervals_are_drawn_over_patients_where_these_are_known() -> None:
    patients = np.repeat(np.arange(10), 4)
    truth = np.ones((40, 1), np.bool_)
    # All photos of a patient are right, or wrong.
    probability = np.where(patients % 2, 0.9, 0.1)[:, None]
    stage = ClassifierStage(
        arch="timm", backbone="regnety_002", classes=("a",), outputs="logistic", sha256=UNHASHED
    )
    recipe: Any = SimpleNamespace(data=SimpleNamespace(apart=()), seed=0)
    widths = []
    for groups in (None, patients):
        found = measure(probability, truth, stage, 0.5, recipe, groups)
        recall = next(metric for metric in found if (metric.name, metric.of) == ("recall", "a"))
        assert recall.value == 0.5 and recall.low is not None and recall.high is not None
        widths.append(recall.high - recall.low)
    assert widths[1] > 1.5 * widths[0]


def test_photos_that_are_called_alike_in_two_sources_are_resampled_apart() -> None:
    files = (("p1", "a/1.jpg"), (None, "a/2.jpg"), (None, "b/2.jpg"), (None, "b/2.jpg"))
    photos = [
        ClassedPhoto(StoredPhoto(Path(file).name, Path("/" + file)), (), group=group)
        for group, file in files
    ]
    groups = _groups(photos)
    assert groups is not None
    assert [groups.tolist().index(number) for number in groups] == [0, 1, 2, 2]
