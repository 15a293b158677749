"""What the mmdet detectors promise the scorer, on random weights, whose boxes mean nothing but must agree."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from skinbatch.errors import ModelOutputError, PackError, UsageError
from skinbatch.models.mmdet_architectures import ARCHITECTURES, Anchors, DetectorSpec
from skinbatch.models.mmdet_detector import MMDetDetector, build_model
from skinbatch.types import Detections

SPECS = {
    "yolox": DetectorSpec("yolox-tiny", ("acne",), strides=(8, 16), head_channels=32, score_floor=0.0, size=256),
    "faster-rcnn": DetectorSpec(
        "faster-rcnn-r18", ("papule", "pustule"), strides=(8, 16, 32), head_channels=32, score_floor=0.0, size=256
    ),
}


@pytest.fixture(scope="module", params=SPECS)
def detector(request: pytest.FixtureRequest) -> MMDetDetector:
    spec = SPECS[request.param]
    torch.manual_seed(0)
    return MMDetDetector(spec, lively(build_model(spec)).state_dict())


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Random weights say the same everywhere; larger ones in the last layers make boxes differ."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.split(".")[-2].startswith(("fc_cls", "fc_reg", "rpn_cls", "rpn_reg")) or "multi_level_conv" in name:
                value.normal_(0, 0.3)
    return model


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])


def same(a: Detections, b: Detections) -> None:
    assert len(a) == len(b) > 0
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)
    np.testing.assert_allclose(a.xyxy, b.xyxy, atol=0.05)


def test_a_photo_alone_and_in_a_batch_of_other_sizes_has_the_same_boxes(detector: MMDetDetector) -> None:
    photos = [noise(200, 256, 1), noise(256, 256, 2), noise(100, 90, 3), noise(250, 256, 4), noise(600, 300, 5)]
    for photo, found in zip(photos, detector(photos), strict=True):
        same(found, detector([photo])[0])


def test_boxes_are_in_the_pixels_of_the_given_photo_clipped_and_not_empty(detector: MMDetDetector) -> None:
    for height, width in ((700, 500), (90, 250)):
        found = detector([noise(height, width)])[0]
        assert len(found) > 0
        assert found.xyxy.min() >= 0
        assert (found.xyxy[:, [0, 2]] <= width).all() and (found.xyxy[:, [1, 3]] <= height).all()
        assert (found.xyxy[:, 2] > found.xyxy[:, 0]).all() and (found.xyxy[:, 3] > found.xyxy[:, 1]).all()
    assert found.xyxy[:, 2].max() > 200  # all of the width, not only what a smaller network input would cover


def test_a_photo_twice_as_large_as_the_network_input_gives_boxes_twice_as_large(detector: MMDetDetector) -> None:
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
    capped = MMDetDetector(dataclasses.replace(detector.spec, max_boxes=5), detector.model.state_dict())
    best = capped([noise(256, 256)])[0]
    assert best.saturated and len(best) == 5
    np.testing.assert_allclose(best.scores, everything.scores[:5], atol=1e-5)


def test_nothing_under_the_score_floor_is_returned(detector: MMDetDetector) -> None:
    middle = float(np.median(detector([noise(256, 256)])[0].scores))
    strict = MMDetDetector(dataclasses.replace(detector.spec, score_floor=middle), detector.model.state_dict())
    found = strict([noise(256, 256)])[0]
    assert len(found) > 0 and found.scores.min() >= middle
    assert not found.saturated


def test_boxes_left_after_suppression_overlap_less_than_asked(detector: MMDetDetector) -> None:
    found = detector([noise(256, 256)])[0]
    for label in set(found.labels.tolist()):
        boxes = torch.from_numpy(found.xyxy[found.labels == label])
        inside = boxes[(boxes[:, :2] > 0).all(1) & (boxes[:, 2:] < 256).all(1)]  # clipping changes overlaps
        from torchvision.ops import box_iou

        overlaps = box_iou(inside, inside).fill_diagonal_(0)
        assert overlaps.numel() == 0 or overlaps.max() <= detector.spec.nms_iou + 1e-4


def test_weights_that_give_nan_are_an_error_that_names_the_model(detector: MMDetDetector) -> None:
    weights = {name: value.clone() for name, value in detector.model.state_dict().items()}
    name = next(name for name in weights if "neck" in name and name.endswith("weight"))
    weights[name].flatten()[0] = float("nan")
    broken = MMDetDetector(detector.spec, weights)
    with pytest.raises(ModelOutputError, match=detector.spec.arch):
        broken([noise(256, 256)])


def test_half_precision_weights_are_taken(detector: MMDetDetector) -> None:
    halves = {k: v.half() if v.is_floating_point() else v for k, v in detector.model.state_dict().items()}
    assert len(MMDetDetector(detector.spec, halves)([noise(256, 256)])[0]) > 0


def test_no_photos_give_no_detections(detector: MMDetDetector) -> None:
    assert detector([]) == []


def test_weights_of_another_architecture_are_refused(detector: MMDetDetector) -> None:
    with pytest.raises(PackError, match=detector.spec.arch):
        MMDetDetector(detector.spec, {"a": torch.zeros(1)})


def test_half_precision_without_a_gpu_is_refused(detector: MMDetDetector) -> None:
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        MMDetDetector(detector.spec, detector.model.state_dict(), precision="fp16")


def test_small_photos_are_enlarged_only_as_far_as_the_spec_allows() -> None:
    spec = SPECS["yolox"]
    weights = build_model(spec).state_dict()
    seen: list[tuple[int, ...]] = []
    for most in (1.0, 2.0):
        detector = MMDetDetector(dataclasses.replace(spec, max_upscale=most), weights)
        detector.model.backbone.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
        detector([noise(64, 50)])
    assert seen == [(1, 3, 64, 64), (1, 3, 128, 128)]


def test_anchors_of_the_spec_reach_the_model() -> None:
    anchors = Anchors(scales=(2.0, 3.5), ratios=(0.8, 1.0, 1.3))
    model = build_model(dataclasses.replace(SPECS["faster-rcnn"], anchors=anchors))
    sizes = model.rpn_head.prior_generator.base_anchors[0]
    sides = (sizes[:, 2:] - sizes[:, :2]).prod(1).sqrt()
    np.testing.assert_allclose(sorted(set(sides.round(decimals=3).tolist())), [16.0, 28.0])


def test_an_unknown_architecture_lists_those_that_there_are() -> None:
    with pytest.raises(UsageError) as error:
        DetectorSpec("yolo-9000", ("acne",)).model_config()
    assert all(name in str(error.value) for name in ARCHITECTURES)
