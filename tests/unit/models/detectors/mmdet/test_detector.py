"""Test what the mmdet detectors promise the scorer, on random weights, whose boxes mean nothing but must agree."""

from __future__ import annotations

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from skinbatch.errors import ModelOutputError, PackError, UsageError
from skinbatch.models.detectors.mmdet.detector import MMDetDetector, build_model
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.types import Detections
from tests.unit.models.support import random_detector_state

PLANTED = ("papule", "pustule")
SPECS = {
    "yolox": DetectorSpec(
        "yolox-tiny", ("acne",), strides=(8, 16), head_channels=32, score_floor=0.0, size=256
    ),
    "faster-rcnn": DetectorSpec(
        "faster-rcnn-r18", PLANTED, strides=(8, 16, 32), head_channels=32, score_floor=0.0, size=256
    ),
    "faster-rcnn-r50": DetectorSpec(
        "faster-rcnn-r50", PLANTED, width=0.25, head_channels=32, score_floor=0.0, size=256
    ),
    "inception": DetectorSpec(
        "faster-rcnn-inception", PLANTED, head_channels=32, score_floor=0.0, size=256
    ),
    "ssd": DetectorSpec("ssd-mobilenet", PLANTED, strides=(16, 32, 64), score_floor=0.0, size=256),
    "yolov3": DetectorSpec("yolov3", PLANTED, score_floor=0.0, size=256),
    "yolov4": DetectorSpec("yolov4", PLANTED, width=0.25, score_floor=0.0, size=256),
}


LAST_BIASES = {
    "faster-rcnn-r18": ("fc_cls.bias",),
    "ssd-mobilenet": tuple(f"cls_convs.{level}.0.bias" for level in range(6)),
    "yolov4": tuple(f"convs_pred.{level}.bias" for level in range(3)),
    "yolox-tiny": tuple(f"multi_level_conv_cls.{level}.bias" for level in range(3)),
}


@pytest.fixture(scope="module", params=SPECS)
def detector(request: pytest.FixtureRequest) -> MMDetDetector:
    return MMDetDetector(SPECS[request.param], state_of(SPECS[request.param]))


@functools.lru_cache(maxsize=1)
def state_of(spec: DetectorSpec) -> dict[str, torch.Tensor]:
    fields = ("strides", "width", "head_channels", "anchors", "size")
    return random_detector_state(
        spec.arch, spec.classes, **{name: getattr(spec, name) for name in fields}
    )


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(
        0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8
    )
    return np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])


def same(a: Detections, b: Detections) -> None:
    """Return whether two results agree but for rounding, which may change which of two boxes is suppressed."""
    assert len(a) > 0 and abs(len(a) - len(b)) <= 0.02 * len(a)
    near = np.abs(a.xyxy[:, None] - b.xyxy[None]).max(2) < 0.1
    near &= (np.abs(a.scores[:, None] - b.scores[None]) < 1e-3) & (
        a.labels[:, None] == b.labels[None]
    )
    assert near.any(1).mean() > 0.98


def test_a_photo_alone_and_in_a_batch_of_other_sizes_has_the_same_boxes(
    detector: MMDetDetector,
) -> None:
    photos = [
        noise(200, 256, 1),
        noise(256, 256, 2),
        noise(100, 90, 3),
        noise(250, 256, 4),
        noise(600, 300, 5),
    ]
    for photo, found in zip(photos, detector(photos), strict=True):
        same(found, detector([photo])[0])


def test_boxes_are_in_the_pixels_of_the_given_photo_clipped_and_not_empty(
    detector: MMDetDetector,
) -> None:
    for height, width in ((700, 500), (90, 250)):
        found = detector([noise(height, width)])[0]
        assert len(found) > 0
        assert found.xyxy.min() >= 0
        assert (found.xyxy[:, [0, 2]] <= width).all() and (found.xyxy[:, [1, 3]] <= height).all()
        assert (found.xyxy[:, 2] > found.xyxy[:, 0]).all() and (
            found.xyxy[:, 3] > found.xyxy[:, 1]
        ).all()
    # All of the width, not only what a smaller network input would cover.
    assert found.xyxy[:, 2].max() > 200


def test_a_photo_twice_as_large_as_the_network_input_gives_boxes_twice_as_large(
    detector: MMDetDetector,
) -> None:
    small = noise(256, 192)
    large = small.repeat(2, 0).repeat(2, 1)
    few, many = detector([small])[0], detector([large])[0]
    np.testing.assert_allclose(many.scores[:20], few.scores[:20], atol=1e-4)
    np.testing.assert_allclose(many.xyxy[:20], 2 * few.xyxy[:20], atol=0.1)


def test_scores_descend_and_labels_are_classes(detector: MMDetDetector) -> None:
    found = detector([noise(256, 256)])[0]
    assert (np.diff(found.scores) <= 0).all()
    assert set(found.labels.tolist()) <= set(range(len(detector.classes)))


def test_the_cap_cuts_the_weakest_and_is_told(detector: MMDetDetector) -> None:
    everything = detector([noise(256, 256)])[0]
    capped = MMDetDetector(dataclasses.replace(detector.spec, max_boxes=5), state_of(detector.spec))
    best = capped([noise(256, 256)])[0]
    assert best.saturated and len(best) == 5
    np.testing.assert_allclose(best.scores, everything.scores[:5], atol=1e-5)


def test_nothing_under_the_score_floor_is_returned(detector: MMDetDetector) -> None:
    middle = float(np.median(detector([noise(256, 256)])[0].scores))
    strict = MMDetDetector(
        dataclasses.replace(detector.spec, score_floor=middle), state_of(detector.spec)
    )
    found = strict([noise(256, 256)])[0]
    assert len(found) > 0 and found.scores.min() >= middle
    assert not found.saturated


def test_boxes_left_after_suppression_overlap_less_than_asked(detector: MMDetDetector) -> None:
    found = detector([noise(256, 256)])[0]
    for label in set(found.labels.tolist()):
        boxes = torch.from_numpy(found.xyxy[found.labels == label])
        # Clipping changes overlaps.
        inside = boxes[(boxes[:, :2] > 0).all(1) & (boxes[:, 2:] < 256).all(1)]
        from torchvision.ops import box_iou

        overlaps = box_iou(inside, inside).fill_diagonal_(0)
        assert overlaps.numel() == 0 or overlaps.max() <= detector.spec.nms_iou + 1e-4


def test_weights_that_give_nan_are_an_error_that_names_the_model(detector: MMDetDetector) -> None:
    weights = {name: value.clone() for name, value in state_of(detector.spec).items()}
    name = next(name for name in weights if "neck" in name and name.endswith("weight"))
    weights[name].flatten()[0] = float("nan")
    broken = MMDetDetector(detector.spec, weights)
    with pytest.raises(ModelOutputError, match=detector.spec.arch):
        broken([noise(256, 256)])


def test_two_threads_on_one_detector_find_what_one_finds(detector: MMDetDetector) -> None:
    photos = [noise(250, 256, seed) for seed in range(2)]
    alone = [detector([photo])[0] for photo in photos]
    with ThreadPoolExecutor(2) as threads:
        for _ in range(2):
            for expected, (found,) in zip(
                alone, threads.map(lambda photo: detector([photo]), photos), strict=True
            ):
                same(expected, found)


def test_half_precision_weights_are_taken(detector: MMDetDetector) -> None:
    halves = {
        k: v.half() if v.is_floating_point() else v for k, v in state_of(detector.spec).items()
    }
    assert len(MMDetDetector(detector.spec, halves)([noise(256, 256)])[0]) > 0


def test_no_photos_give_no_detections(detector: MMDetDetector) -> None:
    assert detector([]) == []


def test_a_layer_of_another_number_of_classes_is_named(detector: MMDetDetector) -> None:
    more = dataclasses.replace(detector.spec, classes=("papule", "pustule", "nodule", "comedone"))
    with pytest.raises(
        PackError, match=r"w\.safetensors: .* of 4 classes: layer `\S+` is \(.*has \("
    ):
        MMDetDetector(more, state_of(detector.spec), where="w.safetensors")


def test_a_layer_that_is_missing_or_too_many_is_named(detector: MMDetDetector) -> None:
    weights = dict(state_of(detector.spec))
    name = next(name for name in weights if "neck" in name)
    lacking = {key: value for key, value in weights.items() if key != name}
    with pytest.raises(PackError, match=f"missing layer `{name}`"):
        MMDetDetector(detector.spec, lacking)
    with pytest.raises(PackError, match=r"unexpected layer `ema\.step`"):
        MMDetDetector(detector.spec, weights | {"ema.step": torch.zeros(1)})


def test_weights_of_another_architecture_are_refused(detector: MMDetDetector) -> None:
    with pytest.raises(PackError, match=detector.spec.arch):
        MMDetDetector(detector.spec, {"a": torch.zeros(1)})


def test_half_precision_without_a_gpu_is_refused(detector: MMDetDetector) -> None:
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        MMDetDetector(detector.spec, state_of(detector.spec), precision="fp16")


def test_small_photos_are_enlarged_only_as_far_as_the_spec_allows() -> None:
    spec = SPECS["yolox"]
    weights = build_model(spec).state_dict()
    seen: list[tuple[int, ...]] = []
    for most in (1.0, 2.0):
        detector = MMDetDetector(dataclasses.replace(spec, max_upscale=most), weights)
        detector.model.backbone.register_forward_pre_hook(
            lambda module, args: seen.append(tuple(args[0].shape))
        )
        detector([noise(64, 50)])
    assert seen == [(1, 3, 64, 64), (1, 3, 128, 128)]


def test_a_short_side_bounds_the_input_too_and_a_grey_fills_it_up_to_a_square() -> None:
    spec = dataclasses.replace(
        SPECS["yolox"], max_upscale=64.0, mean=(10.0, 20.0, 30.0), std=(2.0, 2.0, 2.0), bgr=True
    )
    weights = build_model(spec).state_dict()
    seen: list[torch.Tensor] = []
    for more in ({"short_side": 128}, {"padding": 114.0}):
        detector = MMDetDetector(dataclasses.replace(spec, **more), weights)
        detector.model.backbone.register_forward_pre_hook(
            lambda module, args: seen.append(args[0][0])
        )
        detector([np.full((100, 150, 3), 255, np.uint8)])
    assert seen[0].shape == (3, 128, 192)
    assert seen[1].shape == (3, 256, 256)
    assert seen[1][:, 255, 255].tolist() == [42.0, 47.0, 52.0]


@pytest.mark.parametrize("arch", LAST_BIASES)
def test_of_four_classes_each_has_its_own_label(arch: str) -> None:
    """Make the last layer prefer one class after the other, as each kind of head lays them out."""
    classes = ("comedone", "papule", "pustule", "nodule")
    small = {
        "ssd-mobilenet": {},
        "faster-rcnn-r18": {"width": 0.25, "head_channels": 32, "strides": (16, 32)},
    }
    fields: dict[str, Any] = small.get(arch, {"width": 0.25})
    spec = DetectorSpec(arch, classes, size=128, score_floor=0.0, **fields)
    detector = MMDetDetector(spec, state_of(spec))
    biases = [
        value
        for name, value in detector.model.named_parameters()
        if name.endswith(LAST_BIASES[arch])
    ]
    assert biases
    for label in range(4):
        for bias in biases:
            per_anchor = torch.zeros_like(bias).view(
                -1, {"yolov4": 9, "yolox-tiny": 4}.get(arch, 5)
            )
            per_anchor[:, label + (5 if arch == "yolov4" else 0)] = 20
            bias.data.copy_(per_anchor.flatten())
        found = detector([noise(128, 128)])[0]
        assert classes[int(found.labels[0])] == classes[label]
        assert (found.labels[found.scores > 0.999 * found.scores[0]] == label).all()
