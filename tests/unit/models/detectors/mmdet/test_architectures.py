"""Test that the papers' detectors are what they are called, take fitted anchors, and can be trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from skinbatch.config import ModelSettings
from skinbatch.errors import UsageError
from skinbatch.models.architectures import ARCHITECTURES
from skinbatch.models.build import build_detector
from skinbatch.models.detectors.mmdet.config_file import read_file
from skinbatch.models.detectors.mmdet.detector import MMDetDetector, build_model, metainfo
from skinbatch.models.detectors.mmdet.spec import Anchors, DetectorSpec
from skinbatch.models.detectors.mmdet.user_config import model_config, read_config
from skinbatch.models.manifest import DETECTOR_CONFIG
from skinbatch.models.stages import DetectorStage
from skinbatch.models.weights import save_tensors
from tests.unit.models.support import random_detector_state

NAMED = {name: entry for name, entry in ARCHITECTURES["detector"].items() if entry.layers}
ANCHOR_BASED = [name for name, entry in NAMED.items() if entry.starts_from == "anchors"]
COCO = tuple(map(str, range(80)))
# Choices that keep tests quick, for architectures that have them.
SMALL: dict[str, dict[str, Any]] = {
    "faster-rcnn-r18": {"width": 0.25, "head_channels": 32},
    "faster-rcnn-r50": {"width": 0.25, "head_channels": 32},
    "faster-rcnn-r101": {"width": 0.25, "head_channels": 32},
    "faster-rcnn-inception": {"head_channels": 32},
    "faster-rcnn-efficientnet-lite0": {"head_channels": 32},
    "yolov4": {"width": 0.25},
}
LEVELS = {"faster-rcnn": 5, "ssd-mobilenet": 6, "yolov3": 3, "yolov4": 3}


def small(arch: str, **fields: Any) -> DetectorSpec:
    return DetectorSpec(arch, ("acne",), size=128, score_floor=0.0, **SMALL.get(arch, {}) | fields)


def levels(arch: str) -> int:
    return next(number for name, number in LEVELS.items() if arch.startswith(name))


def base_anchors(model: Any) -> list[list[tuple[float, float]]]:
    """Return width and height of the anchors of every level, fine levels first."""
    head = getattr(model, "rpn_head", None) or model.bbox_head
    generator = head.prior_generator
    sizes = [
        [(float(x2 - x1), float(y2 - y1)) for x1, y1, x2, y2 in level]
        for level in generator.base_anchors
    ]
    return sizes if generator.strides[0] < generator.strides[-1] else sizes[::-1]


@pytest.mark.parametrize(
    ("arch", "config"),
    [
        ("faster-rcnn-r50", "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"),
        ("faster-rcnn-r101", "faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py"),
        ("yolov3", "yolo/yolov3_d53_8xb8-ms-608-273e_coco.py"),
        ("yolox-s", "yolox/yolox_s_8xb8-300e_coco.py"),
        ("yolox-tiny", "yolox/yolox_tiny_8xb8-300e_coco.py"),
    ],
)
def test_layers_and_fields_are_those_of_the_public_weights(
    arch: str, config: str, mmdet_configs: Path
) -> None:
    model, fields = read_config(mmdet_configs / config)
    public = build_model(DetectorSpec("mmdet", COCO, model=model)).state_dict()
    ours = build_model(DetectorSpec(arch, COCO)).state_dict()
    assert {name: value.shape for name, value in ours.items()} == {
        k: v.shape for k, v in public.items()
    }
    own = DetectorStage(arch=arch, classes=COCO, sha256="0" * 64, **NAMED[arch].defaults)
    known = {"classes": COCO, "short_side": None, "padding": None} | fields
    assert {name: getattr(own, name) for name in known} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in known.items()
    }


@pytest.mark.parametrize(
    ("arch", "config", "side", "smaller"),
    [
        pytest.param(
            "faster-rcnn-r50", "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", (256, 160), {"size": 256, "short_side": 160},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "yolov3", "yolo/yolov3_d53_8xb8-ms-608-273e_coco.py", (96, 96), {"size": 96}, marks=pytest.mark.slow
        ),
        ("yolox-tiny", "yolox/yolox_tiny_8xb8-300e_coco.py", (192, 192), {"size": 192}),
    ],
)  # fmt: skip
def test_by_name_and_by_its_config_a_network_sees_the_same_in_a_small_photo(
    arch: str,
    config: str,
    side: tuple[int, int],
    smaller: dict[str, int],
    mmdet_configs: Path,
    tmp_path: Path,
) -> None:
    """Use inputs that are smaller than the public ones, which is quicker, and a photo that is smaller still."""
    values = read_file(mmdet_configs / config)
    pipeline = [
        step | ({"scale": side} if "scale" in step else {}) for step in values["test_pipeline"]
    ]
    flat = {k: v for k, v in values.items() if k in ("model", "data_preprocessor")} | {
        "test_pipeline": pipeline
    }
    (tmp_path / "flat.json").write_text(
        json.dumps(flat).replace('"num_classes": 80', '"num_classes": 2')
    )
    model, fields = read_config(tmp_path / "flat.json")
    classes = ("papule", "pustule")
    weights = tmp_path / "detector.safetensors"
    save_tensors(random_detector_state(arch, classes), weights)
    (tmp_path / DETECTOR_CONFIG).write_text(json.dumps(model))
    settings = ModelSettings(score_floor=0.5, max_boxes=1000)
    common = {"classes": classes, "sha256": "0" * 64}
    stages = [
        {"arch": "mmdet", "config_sha256": "0" * 64} | fields | common,
        {"arch": arch} | dict(NAMED[arch].defaults) | smaller | common,
    ]
    photo = (
        np.random.default_rng(5).integers(0, 256, (5, 4, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    )
    theirs, ours = (
        build_detector(
            DetectorStage.model_validate_json(json.dumps(stage)), weights, "cpu", settings
        )([photo])[0]
        for stage in stages
    )
    assert len(ours) > 5 and not ours.saturated
    np.testing.assert_allclose(ours.xyxy, theirs.xyxy, atol=1e-3)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
    np.testing.assert_array_equal(ours.labels, theirs.labels)


@pytest.mark.parametrize(
    ("arch", "numbers"),
    [
        ("yolov3", (248_007_048 - 20) // 4),
        ("yolov4", (257_717_640 - 20) // 4),
    ],
)
def test_yolo_has_as_many_numbers_as_the_weights_file_of_its_authors(
    arch: str, numbers: int
) -> None:
    """Compare with the file for 80 classes, in single precision, after a header of 20 bytes."""
    values = build_model(DetectorSpec(arch, COCO)).state_dict()
    assert (
        sum(
            value.numel()
            for name, value in values.items()
            if not name.endswith("num_batches_tracked")
        )
        == numbers
    )


def test_yolov4_reads_three_maps_and_its_centres_reach_over_their_cells() -> None:
    model = build_model(DetectorSpec("yolov4", ("acne",)))
    with torch.no_grad():
        maps = model.backbone(torch.zeros(1, 3, 64, 96))
        assert [tuple(m.shape[1:]) for m in maps] == [(256, 8, 12), (512, 4, 6), (1024, 2, 3)]
        assert [tuple(m.shape[1:]) for m in model.neck(maps)] == [
            (512, 2, 3),
            (256, 4, 6),
            (128, 8, 12),
        ]
    coder = model.bbox_head.bbox_coder
    anchors = torch.tensor([[0.0, 0, 16, 16], [8, 8, 40, 40]])
    strides = torch.tensor([[8.0], [16.0]])
    far = torch.tensor([[[1.0, 0.0, 0, 0], [1.0, 0.5, 0, 0]]])
    boxes = coder.decode(anchors, far, strides)[0]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    np.testing.assert_allclose(
        centres.numpy(), [[8 + 0.6 * 8, 8 - 0.6 * 8], [24 + 0.55 * 16, 24]], rtol=1e-5
    )
    truth = torch.tensor([[2.0, 4, 12, 20], [10, 12, 50, 30]])
    deltas = coder.encode(anchors, truth, strides[:, 0])
    np.testing.assert_allclose(
        coder.decode(anchors, deltas[None], strides)[0].numpy(), truth.numpy(), atol=1e-3
    )


def test_cells_of_inception_lie_where_their_stride_says() -> None:
    net = build_model(small("faster-rcnn-inception")).backbone.eval()
    for value in net.parameters():
        if value.ndim == 4:
            # So that what comes of a dot is symmetric.
            torch.nn.init.constant_(value, 1 / value[0].numel())
    dark, dot = torch.zeros(2, 1, 3, 768, 768)
    dot[..., 384, 384] = 100
    with torch.no_grad():
        for stride, before, after in zip((4, 8, 16, 32), net(dark), net(dot), strict=True):
            assert after.shape[2:] == (768 // stride, 768 // stride)
            seen = (after - before).abs().sum((0, 1))
            cells = torch.arange(768 / stride)
            centre = (seen.sum(1) @ cells / seen.sum(), seen.sum(0) @ cells / seen.sum())
            np.testing.assert_allclose(centre, 384 / stride, atol=0.1)


@pytest.mark.parametrize(
    "arch", [pytest.param(a, marks=pytest.mark.slow) if a == "yolov3" else a for a in ANCHOR_BASED]
)
def test_fitted_anchors_are_spread_over_the_levels_small_first_and_move_the_boxes(
    arch: str,
) -> None:
    number = levels(arch)
    sizes = tuple((4.0 + i, 5.0 + 2 * i) for i in range(2 * number))
    fitted = small(arch, anchors=Anchors(sizes=sizes))
    assert base_anchors(build_model(fitted)) == [
        [pytest.approx(size) for size in sizes[2 * i : 2 * i + 2]] for i in range(number)
    ]
    photo = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    weights = random_detector_state(arch, size=128, **SMALL.get(arch, {}), anchors=fitted.anchors)
    larger = dataclasses.replace(
        fitted, anchors=Anchors(sizes=tuple((3 * w, 3 * h) for w, h in sizes))
    )
    sides = [
        np.median(found.xyxy[:, 2:] - found.xyxy[:, :2])
        for found in (MMDetDetector(spec, weights)([photo])[0] for spec in (fitted, larger))
    ]
    assert sides[1] > 1.2 * sides[0] > 0


@pytest.mark.parametrize("arch", ANCHOR_BASED)
def test_anchors_by_scale_and_ratio_are_multiples_of_the_stride(arch: str) -> None:
    model = build_model(small(arch, anchors=Anchors(scales=(2.0, 3.5), ratios=(0.8, 1.3))))
    finest = base_anchors(model)[0]
    stride = {"ssd": 16, "yol": 8, "fas": 4}[arch[:3]]
    np.testing.assert_allclose(
        sorted(np.prod(finest, axis=1) ** 0.5), [2 * stride] * 2 + [3.5 * stride] * 2, rtol=1e-4
    )
    np.testing.assert_allclose(sorted(h / w for w, h in finest), [0.8, 0.8, 1.3, 1.3], rtol=1e-4)


@pytest.mark.parametrize("arch", ANCHOR_BASED)
def test_anchors_that_do_not_go_into_the_levels_are_refused(arch: str) -> None:
    number = levels(arch)
    sizes = tuple((5.0, 5.0 + i) for i in range(number + 1))
    with pytest.raises(
        UsageError,
        match=f"{number + 1} anchors cannot be spread evenly over {number} levels.*multiple",
    ):
        model_config(small(arch, anchors=Anchors(sizes=sizes)))


@pytest.mark.parametrize(
    ("arch", "fields", "message"),
    [
        ("yolox-s", {"anchors": Anchors()}, "yolox-s: `anchors` cannot be chosen"),
        ("yolov3", {"width": 0.5}, "yolov3: `width`"),
        ("yolov4", {"head_channels": 64}, "yolov4: `head_channels`"),
        ("ssd-mobilenet", {"width": 0.5}, "ssd-mobilenet: `width`"),
        ("yolov4", {"strides": (8, 16)}, r"yolov4: strides \(8, 16\); choose from \(8, 16, 32\)"),
        (
            "yolox-tiny",
            {"strides": (4, 8)},
            r"yolox-tiny: strides \(4, 8\); choose from \(8, 16, 32\), \(8, 16\)",
        ),
        ("faster-rcnn-r50", {"strides": (2, 4)}, r"choose from \(4, 8, 16, 32, 64\)"),
        ("ssd-mobilenet", {"strides": (16, 32)}, r"choose from \(16, 32, 64, 128, 256, 512\)"),
    ],
)
def test_what_an_architecture_has_no_choice_of_is_refused(
    arch: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        model_config(DetectorSpec(arch, ("acne",), **fields))


def test_an_unknown_architecture_lists_those_that_there_are() -> None:
    with pytest.raises(UsageError) as error:
        model_config(DetectorSpec("yolo-9000", ("acne",)))
    assert all(name in str(error.value) for name in NAMED)


@pytest.mark.parametrize("arch", ANCHOR_BASED)
def test_one_step_of_training_has_a_finite_loss_and_reaches_the_first_layer(arch: str) -> None:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    torch.manual_seed(0)
    model = build_model(small(arch)).train()
    samples = []
    for _ in range(2):
        sample = DetDataSample(metainfo=metainfo((128, 128), (128, 128)))
        boxes = torch.tensor([[20.0, 30, 44, 60], [70, 64, 100, 90]])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(2, dtype=torch.long))
        sample.ignored_instances = InstanceData(
            bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long)
        )
        samples.append(sample)
    losses = model.loss(torch.randn(2, 3, 128, 128), samples)
    parts = [
        p
        for name, v in losses.items()
        if "loss" in name
        for p in (v if isinstance(v, list) else [v])
    ]
    loss = torch.stack([part.sum() for part in parts]).sum()
    assert torch.isfinite(loss) and loss > 0
    torch.autograd.backward(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    first = next(
        parameter for name, parameter in model.named_parameters() if name.startswith("backbone")
    )
    assert first.grad.abs().sum() > 0
