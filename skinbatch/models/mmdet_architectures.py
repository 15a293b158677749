"""The mmdet detectors by name: each entry is a function from a few numbers to an mmdet model config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from skinbatch.errors import UsageError
from skinbatch.models.base import InputKind

ModelConfig = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Anchors:
    """Boxes that an anchor-based detector starts from.

    scales: side of the square anchor as a multiple of the stride, for every level. ratios: height / width.
    """

    scales: tuple[float, ...] = (8.0,)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """What a detector is built from, all of it plain values that a pack's manifest holds.

    arch: a name in ARCHITECTURES. classes: names in label order. size: long side of the network's input in pixels;
    larger photos are scaled down to it, smaller ones up, by `max_upscale` at most. strides: of the levels that predict.
    width: factor of the backbone's channels. head_channels: of the pyramid and the head. All three: None for the
    architecture's own. score_floor, nms_iou, max_boxes: of the last, class-wise suppression. mean, std: per RGB channel
    of pixels 0-255; bgr: the order in which the network wants the channels.
    """

    arch: str
    classes: tuple[str, ...]
    input: InputKind = "crop"
    size: int = 640
    max_upscale: float = 1.0
    strides: tuple[int, ...] | None = None
    head_channels: int | None = None
    anchors: Anchors = field(default_factory=Anchors)
    score_floor: float = 0.05
    nms_iou: float = 0.5
    max_boxes: int = 500
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    bgr: bool = False
    width: float | None = None

    def model_config(self) -> ModelConfig:
        """The mmdet config. Raises UsageError for an architecture that is not there."""
        try:
            build = ARCHITECTURES[self.arch]
        except KeyError:
            raise UsageError(f"no detector architecture `{self.arch}`; there are: {', '.join(ARCHITECTURES)}") from None
        return build(self)


def yolox_tiny(spec: DetectorSpec) -> ModelConfig:
    """YOLOX-tiny; strides (8, 16) leaves out the deepest stage, which small lesions do not need."""
    strides = spec.strides or (8, 16, 32)
    width = spec.width or 0.375
    channels = spec.head_channels or int(256 * width)
    stages = [[64, 128, 3, True, False], [128, 256, 9, True, False], [256, 512, 9, True, False]]
    if strides == (8, 16):
        stages[-1] = [256, 512, 9, False, True]
    elif strides == (8, 16, 32):
        stages.append([512, 1024, 3, False, True])
    else:
        raise UsageError(f"yolox-tiny: strides {strides}; there are (8, 16) and (8, 16, 32)")
    return {
        "type": "YOLOX",
        "backbone": {
            "type": "CSPDarknet",
            "arch_ovewrite": stages,
            "deepen_factor": 0.33,
            "widen_factor": width,
            "out_indices": tuple(range(2, 2 + len(strides))),
        },
        "neck": {
            "type": "YOLOXPAFPN",
            "in_channels": [int(c * width) for c in (256, 512, 1024)][: len(strides)],
            "out_channels": channels,
            "num_csp_blocks": 1,
        },
        "bbox_head": {
            "type": "YOLOXHead",
            "num_classes": len(spec.classes),
            "in_channels": channels,
            "feat_channels": channels,
            "strides": strides,
        },
        "train_cfg": {"assigner": {"type": "SimOTAAssigner", "center_radius": 2.5}},
        "test_cfg": {"score_thr": spec.score_floor, "nms": {"type": "nms", "iou_threshold": spec.nms_iou}},
    }


def faster_rcnn_r18(spec: DetectorSpec) -> ModelConfig:
    """Faster R-CNN on ResNet-18 with a feature pyramid and the spec's anchors."""
    base = int(64 * (spec.width or 1))
    backbone = {
        "type": "ResNet",
        "depth": 18,
        "base_channels": base,
        "num_stages": 4,
        "out_indices": (0, 1, 2, 3),
        "frozen_stages": -1,
        "norm_cfg": {"type": "BN", "requires_grad": True},
        "norm_eval": False,
        "style": "pytorch",
    }
    return faster_rcnn(spec, backbone, [base, 2 * base, 4 * base, 8 * base])


def faster_rcnn(spec: DetectorSpec, backbone: ModelConfig, channels: list[int]) -> ModelConfig:
    """Faster R-CNN with a feature pyramid over any backbone whose outputs have strides 4, 8, 16, 32 and `channels`."""
    strides = spec.strides or (4, 8, 16, 32, 64)
    first = (4, 8, 16, 32).index(strides[0])
    width = spec.head_channels or 256
    coder = {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4}
    pooled = [stride for stride in strides if stride <= 32]
    return {
        "type": "FasterRCNN",
        "backbone": backbone,
        "neck": {
            "type": "FPN",
            "in_channels": channels,
            "out_channels": width,
            "start_level": first,
            "num_outs": len(strides),
        },
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": width,
            "feat_channels": width,
            "anchor_generator": {
                "type": "AnchorGenerator",
                "scales": list(spec.anchors.scales),
                "ratios": list(spec.anchors.ratios),
                "strides": list(strides),
            },
            "bbox_coder": coder | {"target_stds": [1.0] * 4},
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
            "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "roi_head": {
            "type": "StandardRoIHead",
            "bbox_roi_extractor": {
                "type": "SingleRoIExtractor",
                # Only torchvision's operator has a gradient here; see mmcv_ops.
                "roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0, "use_torchvision": True},
                "out_channels": width,
                "featmap_strides": pooled,
            },
            "bbox_head": {
                "type": "Shared2FCBBoxHead",
                "in_channels": width,
                "fc_out_channels": 4 * width,
                "roi_feat_size": 7,
                "num_classes": len(spec.classes),
                "bbox_coder": coder | {"target_stds": [0.1, 0.1, 0.2, 0.2]},
                "reg_class_agnostic": False,
                "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
                "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
            },
        },
        "train_cfg": {
            "rpn": {
                "assigner": _assigner(0.7, 0.3, 0.3, low_quality=True),
                "sampler": _sampler(256, 0.5, add_gt=False),
                "allowed_border": -1,
                "pos_weight": -1,
                "debug": False,
            },
            "rpn_proposal": _proposals(),
            "rcnn": {
                "assigner": _assigner(0.5, 0.5, 0.5, low_quality=False),
                "sampler": _sampler(256, 0.25, add_gt=True),
                "pos_weight": -1,
                "debug": False,
            },
        },
        "test_cfg": {
            "rpn": _proposals(),
            "rcnn": {
                "score_thr": spec.score_floor,
                "nms": {"type": "nms", "iou_threshold": spec.nms_iou},
                "max_per_img": spec.max_boxes,
            },
        },
    }


def _assigner(positive: float, negative: float, minimum: float, *, low_quality: bool) -> ModelConfig:
    return {
        "type": "MaxIoUAssigner",
        "pos_iou_thr": positive,
        "neg_iou_thr": negative,
        "min_pos_iou": minimum,
        "match_low_quality": low_quality,
        "ignore_iof_thr": -1,
    }


def _sampler(number: int, positive: float, *, add_gt: bool) -> ModelConfig:
    return {
        "type": "RandomSampler",
        "num": number,
        "pos_fraction": positive,
        "neg_pos_ub": -1,
        "add_gt_as_proposals": add_gt,
    }


def _proposals() -> ModelConfig:
    return {"nms_pre": 1000, "max_per_img": 1000, "nms": {"type": "nms", "iou_threshold": 0.7}, "min_bbox_size": 0}


ARCHITECTURES: Mapping[str, Callable[[DetectorSpec], ModelConfig]] = {
    "yolox-tiny": yolox_tiny,
    "faster-rcnn-r18": faster_rcnn_r18,
}
