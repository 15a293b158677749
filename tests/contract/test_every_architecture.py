"""Test every architecture that `pack import` takes: import random weights, score and verify."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import skinbatch
from skinbatch.config import Config, EngineSettings, ModelSettings
from skinbatch.models.architectures import ARCHITECTURES
from skinbatch.models.assemble import add_stage
from skinbatch.models.importing import Import
from skinbatch.models.pack import Pack
from skinbatch.types import ImageResult
from tests.faces import face, jpeg, png, write_tree
from tests.unit.models.onnx_files import SquareYolo, export, yolo
from tests.unit.models.support import (
    CLASSIFIER_SIZES,
    classifier_weights,
    random_detector_state,
    segmenter_weights,
)

TWO = ("papule", "pustule")
SIZES = {"ssd-mobilenet": 320}
USERS_CONFIG = """
model = dict(
    type='FCOS',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                           bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=18, num_stages=4, out_indices=(0, 1, 2, 3)),
    neck=dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=32, num_outs=5, start_level=1,
              add_extra_convs='on_output'),
    bbox_head=dict(type='FCOSHead', num_classes=2, in_channels=32, feat_channels=32, stacked_convs=1,
                   strides=[8, 16, 32, 64, 128]),
    test_cfg=dict(nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5),
                  max_per_img=100))
metainfo = dict(classes=('papule', 'pustule'))
test_dataloader = dict(dataset=dict(metainfo=metainfo, pipeline=[
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(192, 192), keep_ratio=True),
    dict(type='PackDetInputs')]))
"""


def toml(folder: Path, **fields: object) -> tuple[Path, ...]:
    path = folder / "stage.toml"
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in fields.items()))
    return (path,)


def segmenter(arch: str, folder: Path) -> Import:
    torch.save({"state_dict": segmenter_weights(arch, 19)}, folder / "weights.pth")
    return Import(
        "segmenter", arch, folder / "weights.pth", toml(folder, size=64), ("celebamask-hq",)
    )


def detector(arch: str, folder: Path, **fields: Any) -> Import:
    if arch == "yolo-onnx":
        return Import("detector", arch, yolo(folder / "best.onnx", "v8", classes=TWO))
    weights = folder / "weights.pth"
    if arch == "mmdet":
        (folder / "my.py").write_text(USERS_CONFIG)
        from skinbatch.models.detectors.mmdet.user_config import read_config

        state = random_detector_state(arch, TWO, model=read_config(folder / "my.py")[0])
        torch.save({"meta": {}, "state_dict": state}, weights)
        return Import("detector", arch, weights, (folder / "my.py",))
    size = SIZES.get(arch, 128)
    torch.save(random_detector_state(arch, TWO, size=size, **fields), weights)
    return Import("detector", arch, weights, toml(folder, size=size, **fields), TWO)


def classifier(arch: str, folder: Path, **fields: Any) -> Import:
    classes = ("none", "mild", "moderate", "severe")
    if arch == "onnx":
        network = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        export(network, folder / "best.onnx", (1, 3, 64, 64), open_axes=(0,))
        return Import(
            "classifier", arch, folder / "best.onnx", toml(folder, outputs="softmax"), classes
        )
    backbone = "mobilenetv3_small_050" if arch == "timm" else None
    size = CLASSIFIER_SIZES.get(arch, 64)
    torch.save(classifier_weights(arch, 4, backbone=backbone, **fields), folder / "weights.pth")
    named = f"timm:{backbone}" if backbone else arch
    config = toml(folder, size=size, **fields)
    return Import(
        "classifier", named, folder / "weights.pth", config, classes, {"head": "acne_grade"}
    )


MAKERS: dict[str, Callable[..., Import]] = {
    "segmenter": segmenter,
    "detector": detector,
    "classifier": classifier,
}
CASES = [
    (stage, arch)
    for stage, entries in ARCHITECTURES.items()
    for arch, entry in entries.items()
    if entry.weights != "none"
]


# The largest of a family, whose smaller members stay in the quick tests.
LARGE = (
    "faster-rcnn-r50",
    "faster-rcnn-r101",
    "faster-rcnn-inception",
    "yolov3",
    "yolov4",
    "inception_resnet_v2",
)
MARKED_CASES = [
    pytest.param(case, marks=pytest.mark.slow if case[1] in LARGE else (), id=case[1])
    for case in CASES
]


@pytest.fixture(params=MARKED_CASES)
def imported(
    request: pytest.FixtureRequest, tmp_path: Path, fake_pack: str
) -> tuple[str, str, Pack]:
    """Return the stage, the architecture, and a pack with it whose other stages are fakes."""
    stage, arch = request.param
    wanted = MAKERS[stage](arch, tmp_path)
    return stage, arch, add_stage("mine", wanted, dest=str(tmp_path / "packs"), base=fake_pack)


def test_an_imported_model_scores_a_photo(imported: tuple[str, str, Pack]) -> None:
    stage, _, pack = imported
    pack.verify()
    found = scorer(pack)(face(left=2, right=1))
    assert found.status == "ok", found.error
    if stage == "classifier":
        assert set(found.probs) == set(pack.prob_columns) and all(
            0 <= p <= 1 for p in found.probs.values()
        )
    if stage == "detector":
        assert found.boxes and {box.label for box in found.boxes} <= set(TWO)
        assert all(0 <= b.x1 < b.x2 <= 96 and 0 <= b.y1 < b.y2 <= 96 for b in found.boxes)
    if stage != "segmenter":
        assert found.face


FAMILIES = [
    *(("segmenter", arch, {}) for arch in ("bisenet-light", "bisenet-r18")),
    *(("detector", arch, {}) for arch in ("ssd-mobilenet", "yolox-tiny", "mmdet")),
    ("detector", "faster-rcnn-r50", {"width": 0.25, "head_channels": 32}),
    ("detector", "yolov4", {"width": 0.25}),
    pytest.param("detector", "yolov3", {}, marks=pytest.mark.slow),
    *(("classifier", "timm", {"top": top}) for top in ("pooled", "flatten", "native")),
    ("classifier", "cnn-multilabel", {}),
]


@pytest.mark.parametrize(("stage", "arch", "fields"), FAMILIES)
def test_nan_of_the_last_layer_is_a_model_error_and_never_a_number(
    stage: str, arch: str, fields: dict[str, Any], tmp_path: Path, fake_pack: str
) -> None:
    pack = add_stage(
        "mine",
        MAKERS[stage](arch, tmp_path, **fields),
        dest=str(tmp_path / "packs"),
        base=fake_pack,
    )
    built = scorer(pack)
    model: Any = {"segmenter": built.models.segmenter, "detector": built.models.detector}.get(
        stage, built.models.classifiers[-1]
    )
    network: nn.Module = model.model if stage == "detector" else model.network
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)][-1]
    assert built(face(left=2, right=1)).status == "ok"
    for value in last.parameters():
        value.data.fill_(math.nan)
    refused(built(face(left=2, right=1)), stage)


@pytest.mark.parametrize("number", [math.inf, -math.inf])
def test_an_infinite_number_is_no_certainty(number: float, tmp_path: Path, fake_pack: str) -> None:
    pack = add_stage(
        "mine", classifier("timm", tmp_path), dest=str(tmp_path / "packs"), base=fake_pack
    )
    built = scorer(pack)
    network: Any = built.models.classifiers[-1]
    last = [
        module for module in network.network.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ][-1]
    assert last.bias is not None
    last.bias.data[0] = number
    refused(built(face(left=2, right=1)), "classifier")


class NaNOnSkin(nn.Module):
    """Return another network's numbers, or NaN if the mean of a photo's first channel is over a limit."""

    def __init__(self, network: nn.Module, limit: float) -> None:
        super().__init__()
        self.network, self.limit = network, limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left = (self.limit - x[:, 0].mean((1, 2))).sqrt()
        numbers = self.network(x)
        return numbers + 0 * left.reshape(-1, *[1] * (numbers.ndim - 1))


def test_nan_of_an_onnx_classifier_is_a_model_error_and_never_a_number(
    tmp_path: Path, fake_pack: str
) -> None:
    """Give NaN for faces only: the photo of noise that an import tries is less red."""
    network = NaNOnSkin(
        nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 0.5
    )
    path = export(network, tmp_path / "best.onnx", (1, 3, 64, 64), open_axes=(0,))
    wanted = Import(
        "classifier",
        "onnx",
        path,
        toml(tmp_path, outputs="softmax"),
        ("none", "mild", "moderate", "severe"),
    )
    pack = add_stage("mine", wanted, dest=str(tmp_path / "packs"), base=fake_pack)
    refused(scorer(pack)(face(left=2, right=1)), "classifier")


def test_nan_of_an_onnx_detector_is_a_model_error_and_never_a_number(
    tmp_path: Path, fake_pack: str
) -> None:
    path = export(
        NaNOnSkin(SquareYolo(2, "v8"), 0.56), tmp_path / "best.onnx", (1, 3, 64, 64), open_axes=(0,)
    )
    wanted = Import("detector", "yolo-onnx", path, toml(tmp_path, layout="v8"), TWO)
    pack = add_stage("mine", wanted, dest=str(tmp_path / "packs"), base=fake_pack)
    refused(scorer(pack)(face(left=2, right=1)), "detector")


def scorer(pack: Pack) -> skinbatch.Scorer:
    """Return a scorer with a score floor of 0, at which random weights find some boxes.

    It runs on torch, so that weights changed after loading change the numbers.
    """
    model, engine = ModelSettings(score_floor=0.0, max_boxes=50), EngineSettings(runtime="torch")
    return skinbatch.Scorer(pack, device="cpu", config=Config(model=model, engine=engine))


def refused(found: ImageResult, stage: str) -> None:
    assert found.status == "model_error" and found.error is not None
    assert stage in found.error and "NaN" in found.error
    assert not found.boxes and not found.probs and found.count_total is None and found.grade is None


@pytest.mark.slow
def test_an_archive_is_scored_and_verified(
    imported: tuple[str, str, Pack], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    _, _, pack = imported
    photos = write_tree(
        tmp_path / "photos", {"a.jpg": jpeg(face(1, 2)), "b/c.png": png(face(3, 0, shade=9))}
    )
    if (real := Path(__file__).parents[3] / "shared/data/acne04/valid").is_dir():
        for number, path in enumerate(sorted(real.glob("*.jpg"))[:3]):
            (photos / f"real-{number}.jpg").write_bytes(path.read_bytes())
    report = skinbatch.score(photos, tmp_path / "out", pack=str(pack.directory), engine="local")
    assert report.exit_code == 0 and set(report.statuses) == {"ok"}, report.message
    assert skinbatch.verify(tmp_path / "out").differences == []
    images = skinbatch.open(tmp_path / "out").images()
    assert set(pack.prob_columns) <= set(images.column_names)
    assert [f"count_{name}" in images.column_names for name in pack.detector_classes] == [
        True
    ] * len(pack.detector_classes)
    if not real.is_dir():
        pytest.skip(f"scored and verified on drawn faces; no real ones in {real}")
