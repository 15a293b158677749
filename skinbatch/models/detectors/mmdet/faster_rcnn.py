"""Define Faster R-CNN with a feature pyramid, over several backbones, as mmdet model configs."""

from __future__ import annotations

from skinbatch.models.detectors.mmdet.spec import DetectorSpec, ModelConfig

BACKBONE = (4, 8, 16, 32)
PYRAMID = (*BACKBONE, 64)


def r18(spec: DetectorSpec) -> ModelConfig:
    """Build Faster R-CNN on ResNet-18."""
    base = int(64 * (spec.width or 1))
    return _faster_rcnn(spec, _resnet(18, base), [base, 2 * base, 4 * base, 8 * base])


def r50(spec: DetectorSpec) -> ModelConfig:
    """Build Faster R-CNN on ResNet-50 (He 2016).

    Layers are named as in mmdet's public `faster-rcnn_r50_fpn`.
    """
    return _bottleneck_resnet(spec, 50)


def r101(spec: DetectorSpec) -> ModelConfig:
    """Build Faster R-CNN on ResNet-101, the best of paper 003."""
    return _bottleneck_resnet(spec, 101)


def inception(spec: DetectorSpec) -> ModelConfig:
    """Build Faster R-CNN on timm's Inception-v3.

    Paper 003 used Inception-v2, which no maintained library has. No public weights have these layer
    names.
    """
    spec.has_no("width")
    backbone = {"type": "TimmFeatures", "name": "inception_v3", "out_indices": [1, 2, 3, 4]}
    return _faster_rcnn(spec, backbone, [192, 288, 768, 2048])


def efficientnet_lite0(spec: DetectorSpec) -> ModelConfig:
    """Build Faster R-CNN on timm's EfficientNet-Lite0.

    It is the lightest one here that can begin with ImageNet's weights.
    """
    spec.has_no("width")
    backbone = {"type": "TimmFeatures", "name": "efficientnet_lite0", "out_indices": [1, 2, 3, 4]}
    return _faster_rcnn(spec, backbone, [24, 40, 112, 320])


def _bottleneck_resnet(spec: DetectorSpec, depth: int) -> ModelConfig:
    base = int(64 * (spec.width or 1))
    return _faster_rcnn(spec, _resnet(depth, base), [4 * base, 8 * base, 16 * base, 32 * base])


def _resnet(depth: int, base: int) -> ModelConfig:
    return {
        "type": "ResNet",
        "depth": depth,
        "base_channels": base,
        "num_stages": 4,
        "out_indices": (0, 1, 2, 3),
        "frozen_stages": -1,
        "norm_cfg": {"type": "BN", "requires_grad": True},
        "norm_eval": False,
        "style": "pytorch",
    }


def _faster_rcnn(spec: DetectorSpec, backbone: ModelConfig, channels: list[int]) -> ModelConfig:
    """Build Faster R-CNN over a backbone whose outputs have strides 4, 8, 16, 32 and `channels`.

    Levels are any run of PYRAMID that begins at 4, 8 or 16. By default, anchors are squares of 8
    strides, and 1:2 and 2:1.
    """
    strides = spec.one_of(
        *(PYRAMID[first:last] for first in range(3) for last in range(5, first, -1))
    )
    first = BACKBONE.index(strides[0])
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
            "end_level": BACKBONE.index(strides[-1]) if strides[-1] < BACKBONE[-1] else -1,
            "num_outs": len(strides),
        },
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": width,
            "feat_channels": width,
            "anchor_generator": _anchor_generator(spec, strides),
            "bbox_coder": coder | {"target_stds": [1.0] * 4},
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
            "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "roi_head": {
            "type": "StandardRoIHead",
            "bbox_roi_extractor": {
                "type": "SingleRoIExtractor",
                # Only torchvision's operator has a gradient here; see operators.
                "roi_layer": {
                    "type": "RoIAlign",
                    "output_size": 7,
                    "sampling_ratio": 0,
                    "use_torchvision": True,
                },
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


def _anchor_generator(spec: DetectorSpec, strides: tuple[int, ...]) -> ModelConfig:
    """Return the anchor generator.

    Anchors by scale and ratio sit on the corner of their cell, as in mmdet's public weights. Fitted
    ones sit on its centre.
    """
    if spec.anchors is not None and spec.anchors.sizes is not None:
        sizes = spec.anchors.levels(strides)
        return {"type": "YOLOAnchorGenerator", "strides": list(strides), "base_sizes": sizes}
    scales, ratios = (
        (spec.anchors.scales, spec.anchors.ratios) if spec.anchors else ((8.0,), (0.5, 1.0, 2.0))
    )
    return {
        "type": "AnchorGenerator",
        "scales": list(scales),
        "ratios": list(ratios),
        "strides": list(strides),
    }


def _assigner(
    positive: float, negative: float, minimum: float, *, low_quality: bool
) -> ModelConfig:
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
    return {
        "nms_pre": 1000,
        "max_per_img": 1000,
        "nms": {"type": "nms", "iou_threshold": 0.7},
        "min_bbox_size": 0,
    }
