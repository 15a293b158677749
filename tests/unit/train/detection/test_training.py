"""Train a detector: it learns, survives being killed, and leaves a stage for a pack."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from skinbatch.annotations.read import read_truth
from skinbatch.config import ModelSettings
from skinbatch.errors import UsageError
from skinbatch.metrics.boxes import Boxes
from skinbatch.metrics.detection import curves, match
from skinbatch.models.architectures import ARCHITECTURES
from skinbatch.models.build import build_detector
from skinbatch.models.detectors.mmdet.family import detector_spec
from skinbatch.models.stages import DetectorStage
from skinbatch.train.detection.batches import BEYOND, changes_of
from skinbatch.train.detection.training import train_detector
from skinbatch.train.fitting.progress import SilentProgress
from skinbatch.train.photos.photo_store import read_photo
from skinbatch.train.recipe_file import read_recipe
from skinbatch.train.recipe_sections import AugmentSection
from skinbatch.train.results.result import TrainedStage
from tests.unit.train.detection.spotted import write_spotted

# All but a user's own config.
TRAINABLE = sorted(
    name
    for name, entry in ARCHITECTURES["detector"].items()
    if entry.is_trainable and name != "mmdet"
)
TRAINS = """
import sys
from pathlib import Path
from skinbatch.train.fitting import course
from skinbatch.train.detection.training import train_detector
from skinbatch.train.recipe_file import read_recipe
from skinbatch.train.fitting.progress import SilentProgress

course.SAVE_EVERY_S = course.SHOW_EVERY_S = 0.0

class Printing(SilentProgress):
    def step(self, now):
        print(now.step, flush=True)

train_detector(read_recipe(Path(sys.argv[1])), Path(sys.argv[2]), Printing())
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spotted(tmp_path_factory.mktemp("spotted"))


@pytest.fixture(scope="module")
def trained(recipe: Path) -> TrainedStage:
    """Train without interruption."""
    return train_detector(read_recipe(recipe), recipe.parent / "work", SilentProgress())


def test_the_loss_falls_and_spots_are_found(trained: TrainedStage) -> None:
    first, *_, last = trained.curve
    assert last["loss"] < 0.7 * first["loss"]
    assert max(point["score"] for point in trained.curve) > 0.3
    assert [point["epoch"] for point in trained.curve] == [2, 4, 6]
    assert all(0 <= point["waited"] < 1 for point in trained.curve)


def test_killed_in_the_middle_it_goes_on_as_if_nothing_had_been(
    recipe: Path, trained: TrainedStage, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    command = [sys.executable, "-c", TRAINS, str(recipe), str(work)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 15:  # in the second of six epochs of eleven steps
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    killed_at = torch.load(work / "checkpoint.pt", weights_only=True)["state"]["step"]
    assert 15 <= killed_at < 6 * 11 and killed_at % 11
    noted: list[str] = []
    again = train_detector(read_recipe(recipe), work, _Noting(noted))
    assert [note for note in noted if not note.startswith("inputs of ")] == [
        f"resumed after step {killed_at}"
    ]
    assert [_timeless(point) for point in again.curve] == [
        _timeless(point) for point in trained.curve
    ]
    one, other = load_file(trained.weights), load_file(again.weights)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_it_leaves_is_a_stage_of_a_pack_with_the_scores_that_it_tells(
    recipe: Path, trained: TrainedStage
) -> None:
    stage = DetectorStage.model_validate_json(json.dumps({**trained.fields, "sha256": "0" * 64}))
    detector = build_detector(stage, trained.weights, "cpu", ModelSettings())
    assert (detector.classes, stage.strides, stage.size) == (("acne",), (8, 16), 128)
    assert {str(t.dtype) for t in load_file(trained.weights).values() if t.is_floating_point()} == {
        "torch.float16"
    }
    photos = read_truth(recipe.parent / "valid").photos
    truth = [photo.boxes for photo in photos if photo.boxes is not None]
    found = detector([read_photo(photo.path) for photo in photos if photo.path is not None])
    matches = match(
        Boxes.stack(truth), Boxes.stack([f.xyxy for f in found], [f.scores for f in found])
    )
    told = {(metric.name, metric.of): metric for metric in trained.metrics}
    assert curves(matches).numbers[0] == pytest.approx(told["AP50", ""].value, abs=1e-3)
    counts = [int((f.scores >= stage.threshold).sum()) for f in found]
    off = np.abs(np.array(counts) - [len(boxes) for boxes in truth]).mean()
    assert off == pytest.approx(told["count MAE", ""].value)
    low, high = told["AP50", ""].low, told["AP50", ""].high
    assert low is not None and high is not None and low <= told["AP50", ""].value <= high
    assert told["count MAE", "mild"].photos == 3 and told["AP50", ""].photos == 10
    assert {"count MAE of guessing the training mean", "boxes a photo without lesions"} <= {
        name for name, _ in told
    }
    things = {
        (Path(count.source).name, count.part): (count.photos, dict(count.things))
        for count in trained.data
    }
    assert things["train", "train"] == (40, {"acne": sum(1 + n % 6 for n in range(40))})
    assert things["clear", "train"] == (6, {})


def test_once_over_it_is_over(recipe: Path, trained: TrainedStage) -> None:
    again = train_detector(read_recipe(recipe), recipe.parent / "work", SilentProgress())
    assert again.steps == trained.steps == 66
    assert again.curve == trained.curve
    assert again.stopped == trained.stopped == "the schedule was over"


def _changed(recipe: Path, tmp_path: Path, changes: Mapping[str, str]) -> Path:
    """Write the recipe beside the same photos, with some lines changed."""
    text = recipe.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    for part in ("train", "valid", "clear"):
        (tmp_path / part).symlink_to(recipe.parent / part)
    path = tmp_path / "other.toml"
    path.write_text(text)
    return path


TWO_STAGES = {
    "epochs = 6": "iterations = 2",
    'arch = "yolox-tiny"': 'arch = "faster-rcnn-r18"\nfit_anchors = 4\nshort_side = 128',
    "loader_threads = 0": "loader_threads = 2",
}


def test_anchors_are_fitted_and_a_frozen_backbone_stays_as_it_was(
    recipe: Path, tmp_path: Path
) -> None:
    first = _changed(recipe, tmp_path, TWO_STAGES)
    begun = train_detector(read_recipe(first), tmp_path / "begun", SilentProgress())
    sizes = begun.fields["anchors"]["sizes"]
    assert len(sizes) == 4 and all(8 < side < 22 for size in sizes for side in size)
    text = first.read_text().replace(
        "fit_anchors = 4", f'weights = "{begun.weights}"\nfreeze = "backbone"'
    )
    text += f"\n[model.anchors]\nsizes = {sizes}\n"
    (tmp_path / "frozen.toml").write_text(text)
    noted: list[str] = []
    frozen = train_detector(
        read_recipe(tmp_path / "frozen.toml"), tmp_path / "frozen", _Noting(noted)
    )
    assert any("layers" in note for note in noted)
    before, after = load_file(begun.weights), load_file(frozen.weights)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "backbone" not in moved and "rpn_head" in moved


def test_a_head_that_starts_anew_over_a_known_backbone_expects_boxes_of_the_lesions_size(
    recipe: Path, trained: TrainedStage, tmp_path: Path
) -> None:
    """Use weights of a backbone alone, like ImageNet's; the learning rate changes nothing."""
    backbone = {
        name: value
        for name, value in load_file(trained.weights).items()
        if name.startswith("backbone.")
    }
    torch.save(backbone, tmp_path / "backbone.pth")
    still = {"epochs = 6": "iterations = 1", "lr = 0.006": "lr = 1e-9", "ema = 0.8": "ema = 0.0",
             "bgr = false": 'bgr = false\nweights = "backbone.pth"'}  # fmt: skip
    begun = load_file(
        train_detector(
            read_recipe(_changed(recipe, tmp_path, still)), tmp_path / "begun", SilentProgress()
        ).weights
    )
    assert torch.equal(
        begun["backbone.stem.conv.conv.weight"], backbone["backbone.stem.conv.conv.weight"]
    )
    for level, stride in enumerate((8, 16)):
        width, height = (
            begun[f"bbox_head.multi_level_conv_reg.{level}.bias"][2:].float().exp() * stride
        )
        assert 10 < float(width) < 20 and 10 < float(height) < 20


USERS_OWN = """
num = 1
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], bgr_to_rgb=True),
    backbone=dict(type='ResNet', depth=18, base_channels=16, num_stages=4, out_indices=(0, 1, 2, 3), style='pytorch'),
    neck=dict(type='FPN', in_channels=[16, 32, 64, 128], out_channels=32, start_level=1, num_outs=3),
    bbox_head=dict(type='RetinaHead', num_classes=num, in_channels=32, stacked_convs=1, feat_channels=32,
        anchor_generator=dict(type='AnchorGenerator', octave_base_scale=2, scales_per_octave=2, ratios=[1.0],
            strides=[8, 16, 32])),
    train_cfg=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
        sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=100))
test_pipeline = [dict(type='Resize', scale=(128, 128), keep_ratio=True)]
"""
OWN_MODEL = {
    "epochs = 6": "iterations = 2",
    'arch = "yolox-tiny"': 'arch = "mmdet"\nconfig = "own.py"',
    "strides = [8, 16]\nwidth = 0.25\nhead_channels = 32\nmean = [123.675, 116.28, 103.53]\nstd = [58.395, 57.12, 57.375]": "",
}


def test_a_users_own_mmdet_config_is_trained(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(USERS_OWN)
    trained = train_detector(
        read_recipe(_changed(recipe, tmp_path, OWN_MODEL)), tmp_path / "work", SilentProgress()
    )
    assert (
        trained.config is not None and json.loads(trained.config.read_text())["type"] == "RetinaNet"
    )
    assert (trained.fields["nms_iou"], trained.fields["mean"]) == (0.6, [1.0, 2.0, 3.0])
    assert trained.steps == 2


def test_one_that_cannot_be_trained_is_named(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(USERS_OWN.replace("allowed_border=-1, ", ""))
    with pytest.raises(UsageError, match=r"own\.py.*allowed_border.*train_cfg"):
        train_detector(
            read_recipe(_changed(recipe, tmp_path, OWN_MODEL)), tmp_path / "work", SilentProgress()
        )


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"flip = 0.5": "flip = 0.5\nblemish = 3"}, r"augment\.blemish"),
        ({"ema = 0.8": "label_smoothing = 0.1"}, "label_smoothing"),
        ({"bgr = false": 'bgr = false\nfreeze = "backbone"'}, r"model\.weights"),
        ({"bgr = false": "bgr = false\nfit_anchors = 9"}, "has no anchors"),
        ({'"*" = "acne"': '"*" = ""'}, r"data\.map"),
        ({"lr = 0.006": "lr = 1e12"}, r"schedule\.lr"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_the_settings_name(
    recipe: Path, tmp_path: Path, changes: Mapping[str, str], complaint: str
) -> None:
    path = _changed(recipe, tmp_path, changes)
    with pytest.raises(UsageError, match=complaint):
        train_detector(read_recipe(path), tmp_path / "work", SilentProgress())


@pytest.mark.slow
@pytest.mark.parametrize("arch", TRAINABLE)
def test_every_architecture_is_trained(tmp_path: Path, arch: str) -> None:
    path = write_spotted(tmp_path, photos=6, clear=2)
    fields = {"ssd-mobilenet": "strides = [16, 32, 64, 128]", "yolov4": "width = 0.25"}.get(
        arch, ""
    )
    if arch.startswith("faster-rcnn"):
        fields = "short_side = 128"
    text = path.read_text().replace("epochs = 6", "iterations = 2").replace("crop = 0.5\n", "")
    model = f'[model]\narch = "{arch}"\nclasses = ["acne"]\nsize = 128\n{fields}\n'
    path.write_text(text[: text.index("[model]")] + model + text[text.index("[data]") :])
    trained = train_detector(read_recipe(path), tmp_path / "work", SilentProgress())
    assert trained.steps == 2 and np.isfinite(trained.curve[-1]["loss"])
    stage = DetectorStage.model_validate_json(json.dumps({**trained.fields, "sha256": "0" * 64}))
    assert (
        len(
            build_detector(stage, trained.weights, "cpu", ModelSettings())(
                [np.zeros((128, 128, 3), np.uint8)]
            )
        )
        < 501
    )


class _Noting(SilentProgress):
    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    def note(self, text: str) -> None:
        self._notes.append(text)


def _timeless(point: Mapping[str, float]) -> dict[str, Any]:
    return {name: value for name, value in point.items() if name not in ("minutes", "waited")}


def test_photos_that_were_stretched_are_shown_in_every_shape_between_and_a_little_beyond(
    recipe: Path,
) -> None:
    stage = read_recipe(recipe).model.stage
    assert isinstance(stage, DetectorStage)
    spec = detector_spec(stage, ModelSettings())
    plain = AugmentSection(stretch=(0.9, 1.1))
    assert changes_of(plain, None, 300, spec).augment.stretch == (0.9, 1.1)
    wide = changes_of(plain, 4 / 3, 300, spec).augment.stretch
    assert wide == pytest.approx((0.9 / BEYOND, 1.1 * 4 / 3 * BEYOND))
    tall = changes_of(plain, 3 / 4, 300, spec).augment.stretch
    assert tall == pytest.approx((0.9 * 3 / 4 / BEYOND, 1.1 * BEYOND))
