"""Test that every kind of network gives the same results on every runtime. Weights are random."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import nn

from skinbatch.config import ModelSettings
from skinbatch.models.classifiers.classifier import ClassifierSpec, TorchClassifier
from skinbatch.models.classifiers.onnx_classifier import OnnxClassifier
from skinbatch.models.detectors.mmdet.detector import MMDetDetector
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.models.detectors.yolo_onnx import YoloOnnxDetector, recognise
from skinbatch.models.runtime import network
from skinbatch.models.runtime.runtime import Runtime
from skinbatch.models.segmenters.segmenter import BiSeNetSegmenter
from skinbatch.models.stages import ClassifierStage, DetectorStage
from skinbatch.types import Detections
from tests.unit.models.onnx_files import GREEN, RED, SQUARE, export, photo_with, yolo
from tests.unit.models.support import classifier_weights, random_detector_state, segmenter_weights

pytest.importorskip("openvino")

TWO = ("papule", "pustule")
OPENVINO = Runtime("openvino")
FCOS: dict[str, Any] = {
    "type": "FCOS",
    "backbone": {"type": "ResNet", "depth": 18, "num_stages": 4, "out_indices": (0, 1, 2, 3), "base_channels": 16},
    "neck": {"type": "FPN", "in_channels": [16, 32, 64, 128], "out_channels": 32, "num_outs": 5, "start_level": 1,
             "add_extra_convs": "on_output"},
    "bbox_head": {"type": "FCOSHead", "num_classes": 2, "norm_cfg": {"type": "BN"}, "in_channels": 32, "feat_channels": 32,
                  "stacked_convs": 1, "strides": [8, 16, 32, 64, 128]},
    "test_cfg": {"nms_pre": 1000, "min_bbox_size": 0, "score_thr": 0.05, "nms": {"type": "nms", "iou_threshold": 0.5},
                 "max_per_img": 100},
}  # fmt: skip
NARROW = {"width": 0.25, "head_channels": 32}
DETECTORS = {
    "one stage, own size": {"arch": "yolox-tiny", "size": 128},
    "one stage, square": {"arch": "ssd-mobilenet", "size": 320},
    "one stage, no pyramid": {"arch": "yolov4", "size": 128, "width": 0.25},
    "two stages": {"arch": "faster-rcnn-r50", "size": 128, **NARROW},
    "a user's config": {"arch": "mmdet", "size": 128, "model": FCOS},
}


@pytest.fixture(scope="module")
def photos() -> list[NDArray[np.uint8]]:
    """Return photos of three sizes and proportions, so that no input shape occurs twice."""
    random = np.random.default_rng(3)
    coarse = [random.integers(0, 256, (12, width, 3), np.uint8) for width in (8, 12, 16)]
    return [np.ascontiguousarray(noise.repeat(8, 0).repeat(8, 1)) for noise in coarse]


@pytest.fixture(autouse=True)
def everything_on_openvino(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Fail if a network falls back, which would compare torch with itself."""
    monkeypatch.setenv("SKINBATCH_CACHE", str(tmp_path / "cache"))
    with caplog.at_level(logging.INFO):
        yield
    said = [record.getMessage() for record in caplog.get_records("call")]
    assert not [message for message in said if "not on OpenVINO" in message]


@pytest.mark.parametrize("arch", ["bisenet-light", "bisenet-r18", "bisenet-efficientnet-lite0"])
def test_segmenters_label_the_same_pixels(arch: str, photos: list[NDArray[np.uint8]]) -> None:
    def build(runtime: Runtime) -> BiSeNetSegmenter:
        weights = segmenter_weights(arch, 4)
        return BiSeNetSegmenter(
            arch, ("background", "skin", "nose", "body"), weights, size=64, runtime=runtime
        )

    for right, found in zip(build(Runtime())(photos), build(OPENVINO)(photos), strict=True):
        assert right.shape == found.shape
        assert (right != found).mean() < 0.002
        assert len(np.unique(right)) > 1, "any network would give this map"


@pytest.mark.parametrize("kind", DETECTORS)
def test_detectors_find_the_same_boxes(kind: str, photos: list[NDArray[np.uint8]]) -> None:
    fields: dict[str, Any] = dict(DETECTORS[kind])
    state = random_detector_state(
        fields["arch"], TWO, **{k: v for k, v in fields.items() if k != "arch"}
    )

    def build(runtime: Runtime) -> MMDetDetector:
        spec = DetectorSpec(classes=TWO, score_floor=0.3, max_boxes=40, **fields)
        return MMDetDetector(spec, state, runtime=runtime)

    same_boxes(build(Runtime())(photos), build(OPENVINO)(photos))


@pytest.mark.parametrize("top", ["pooled", "flatten", "native"])
@pytest.mark.parametrize(
    "backbone", ["mobilenetv3_small_050", "tf_efficientnet_lite0", "vit_tiny_patch16_224"]
)
def test_classifiers_give_the_same_probabilities(
    backbone: str, top: Any, photos: list[NDArray[np.uint8]]
) -> None:
    if backbone.startswith("vit") and top != "native":
        pytest.skip("a transformer has no feature map for another top")
    size = 224 if backbone.startswith("vit") else 64
    spec = ClassifierSpec(backbone, ("none", "mild", "severe"), size=size, top=top)
    weights = classifier_weights("timm", 3, backbone=backbone, top=top, size=size)
    same_probabilities(lambda runtime: TorchClassifier(spec, weights, runtime=runtime), photos)


def test_the_plain_cnn_gives_the_same_probabilities(photos: list[NDArray[np.uint8]]) -> None:
    spec = ClassifierSpec("cnn-multilabel", ("none", "mild", "severe"), size=96, top="native")
    weights = classifier_weights("cnn-multilabel", 3)
    same_probabilities(lambda runtime: TorchClassifier(spec, weights, runtime=runtime), photos)


@pytest.mark.parametrize("layout", ["v8", "v5", "nms"])
def test_onnx_detectors_find_the_same_boxes(
    layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = yolo(tmp_path / "best.onnx", layout)
    stage = DetectorStage(arch="yolo-onnx", sha256="0" * 64, **recognise(path).fields)
    seen = [
        photo_with(64, 64, [(8, 8, SQUARE, RED)]),
        photo_with(64, 96, [(24, 12, SQUARE, RED), (60, 40, SQUARE, GREEN)]),
    ]

    def build(runtime: Runtime) -> YoloOnnxDetector:
        return YoloOnnxDetector(path, stage, ModelSettings(), runtime=runtime)

    same_boxes(build(Runtime())(seen), build(OPENVINO)(seen))
    if layout == "nms":
        caplog.clear()  # of equal scores, another one may be suppressed; ONNX Runtime runs the file then


@pytest.mark.parametrize("open_axes", [(), (0,)], ids=["one at a time", "batches"])
def test_onnx_classifiers_give_the_same_probabilities(
    open_axes: tuple[int, ...], tmp_path: Path, photos: list[NDArray[np.uint8]]
) -> None:
    torch.manual_seed(7)
    module = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    path = export(module, tmp_path / "best.onnx", (1, 3, 64, 64), open_axes=open_axes)
    stage = ClassifierStage(
        arch="onnx",
        sha256="0" * 64,
        classes=("none", "mild", "moderate", "severe"),
        size=64,
        outputs="softmax",
    )
    same_probabilities(lambda runtime: OnnxClassifier(path, stage, runtime=runtime), photos)


@pytest.mark.parametrize("kind", ["one stage, own size", "two stages"])
def test_bf16_stays_near_fp32_or_equal_where_the_processor_lacks_it(
    kind: str, photos: list[NDArray[np.uint8]]
) -> None:
    import openvino

    fields: dict[str, Any] = dict(DETECTORS[kind])
    state = random_detector_state(
        fields["arch"], TWO, **{k: v for k, v in fields.items() if k != "arch"}
    )
    spec = DetectorSpec(classes=TWO, score_floor=0.3, max_boxes=40, **fields)
    exact = MMDetDetector(spec, state, runtime=OPENVINO)(photos)
    found = MMDetDetector(spec, state, runtime=OPENVINO, precision="bf16")(photos)
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        for a, b in zip(exact, found, strict=True):
            np.testing.assert_array_equal(a.xyxy, b.xyxy)
    assert all(len(boxes.scores) for boxes in found)


@pytest.mark.parametrize("kind", ["one stage, own size", "two stages", "a user's config"])
def test_detectors_in_bf16_on_torch_decode_their_boxes_in_fp32(
    kind: str, photos: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use torch's emulation of bf16 if the processor lacks it."""
    monkeypatch.setattr(network, "computes_bf16", lambda device: True)
    fields: dict[str, Any] = dict(DETECTORS[kind])
    state = random_detector_state(
        fields["arch"], TWO, **{k: v for k, v in fields.items() if k != "arch"}
    )
    spec = DetectorSpec(classes=TWO, score_floor=0.3, max_boxes=40, **fields)
    exact, found = (MMDetDetector(spec, state, precision=p)(photos) for p in ("fp32", "bf16"))
    for a, b in zip(exact, found, strict=True):
        assert len(b.scores) and abs(a.scores.max() - b.scores.max()) < 0.05
        assert (b.xyxy != torch.from_numpy(b.xyxy).bfloat16().float().numpy()).any()


def same_boxes(right: list[Detections], found: list[Detections]) -> None:
    assert any(len(boxes.scores) for boxes in right), "nothing was found, so nothing was compared"
    for a, b in zip(right, found, strict=True):
        np.testing.assert_allclose(b.scores, a.scores, atol=1e-4)
        # Boxes whose scores differ only by rounding may come in another order.
        apart = np.abs(b.xyxy[:, None] - a.xyxy[None]).max(axis=2, initial=0)
        _, partners = linear_sum_assignment(apart + 1000 * (b.labels[:, None] != a.labels[None]))
        np.testing.assert_allclose(b.xyxy, a.xyxy[partners], atol=0.01)
        np.testing.assert_allclose(b.scores, a.scores[partners], atol=1e-4)
        np.testing.assert_array_equal(b.labels, a.labels[partners])


def same_probabilities(build: Callable[[Runtime], Any], photos: list[NDArray[np.uint8]]) -> None:
    right, found = build(Runtime())(photos), build(OPENVINO)(photos)
    np.testing.assert_allclose(found, right, atol=1e-5)
    assert np.abs(found - right).max() < 0.2 * np.ptp(right, axis=0).max(), (
        "any network would give these"
    )


def test_openvino_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    code = "import skinbatch.models.runtime.openvino_runtime"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"HOME": str(tmp_path)}
    )
    assert list(tmp_path.rglob("*")) == []
