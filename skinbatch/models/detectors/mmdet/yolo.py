"""Define the YOLO family as mmdet model configs."""

from __future__ import annotations

from skinbatch.models.detectors.mmdet.spec import DetectorSpec, ModelConfig, Size

STRIDES = (8, 16, 32)
YOLOV3_ANCHORS = (
    (10, 13),
    (16, 30),
    (33, 23),
    (30, 61),
    (62, 45),
    (59, 119),
    (116, 90),
    (156, 198),
    (373, 326),
)
YOLOV4_ANCHORS = (
    (12, 16),
    (19, 36),
    (40, 28),
    (36, 75),
    (76, 55),
    (72, 146),
    (142, 110),
    (192, 243),
    (459, 401),
)
# `scale_x_y` of yolov4.cfg, by stride.
XY_SCALES = {8: 1.2, 16: 1.1, 32: 1.05}


def yolov3(spec: DetectorSpec) -> ModelConfig:
    """Build YOLOv3 (Redmon 2018) on Darknet-53; layers are named as in mmdet's public `yolov3_d53`.

    By default, anchors are the nine of its paper.
    """
    spec.has_no("width", "head_channels")
    spec.one_of(STRIDES)
    return {
        "type": "YOLOV3",
        "backbone": {"type": "Darknet", "depth": 53, "out_indices": [3, 4, 5], "norm_eval": False},
        "neck": {
            "type": "YOLOV3Neck",
            "num_scales": 3,
            "in_channels": [1024, 512, 256],
            "out_channels": [512, 256, 128],
        },
        "bbox_head": _anchor_head(
            spec, [512, 256, 128], _yolo_anchors(spec, YOLOV3_ANCHORS), {"type": "YOLOBBoxCoder"}
        ),
        **_grid_cfgs(spec),
    }


def yolov4(spec: DetectorSpec) -> ModelConfig:
    """Build YOLOv4 (Bochkovskiy 2020), layer for layer as in yolov4.cfg.

    It has CSPDarknet53 with Mish, spatial pyramid pooling, path aggregation, and an anchor head
    with `scale_x_y`. By default, anchors are the nine of yolov4.cfg.

    It is trained with the losses of mmdet's YOLOv3 head, not with YOLOv4's CIoU. No public weights
    have its layer names.
    """
    spec.has_no("head_channels")
    spec.one_of(STRIDES)
    width = spec.width or 1.0
    channels = [int(c * width) for c in (128, 256, 512)]
    coder = {
        "type": "YOLOv4BoxCoder",
        "scales": [[stride, scale] for stride, scale in XY_SCALES.items()],
    }
    return {
        "type": "YOLOV3",
        "backbone": {"type": "CSPDarknet53", "width": width},
        "neck": {"type": "YOLOv4Neck", "channels": channels},
        "bbox_head": _anchor_head(spec, channels[::-1], _yolo_anchors(spec, YOLOV4_ANCHORS), coder),
        **_grid_cfgs(spec),
    }


def yolox_tiny(spec: DetectorSpec) -> ModelConfig:
    """Build YOLOX-tiny (Ge 2021)."""
    return _yolox_csp(spec, 0.375)


def yolox_s(spec: DetectorSpec) -> ModelConfig:
    """Build YOLOX-s (Ge 2021)."""
    return _yolox_csp(spec, 0.5)


def yolox_efficientnet_lite0(spec: DetectorSpec) -> ModelConfig:
    """Build YOLOX's neck and head (Ge 2021) over timm's EfficientNet-Lite0.

    This backbone can begin with ImageNet's weights.
    """
    return _yolox_lite(spec, "efficientnet_lite0", [40, 112, 320])


def yolox_efficientnet_lite2(spec: DetectorSpec) -> ModelConfig:
    """Build the same over EfficientNet-Lite2, which is wider and deeper."""
    return _yolox_lite(spec, "efficientnet_lite2", [48, 120, 352])


def _yolox_lite(spec: DetectorSpec, name: str, channels: list[int]) -> ModelConfig:
    spec.has_no("width")
    strides = _yolox_strides(spec)
    backbone = {
        "type": "TimmFeatures",
        "name": name,
        "out_indices": list(range(2, 2 + len(strides))),
    }
    return _yolox(spec, strides, backbone, channels[: len(strides)], spec.head_channels or 96)


def _yolox_csp(spec: DetectorSpec, own_width: float) -> ModelConfig:
    """Build YOLOX over its own backbone.

    Strides (8, 16) leave out the deepest stage, which small lesions do not need.
    """
    strides = _yolox_strides(spec)
    width = spec.width or own_width
    stages = [[64, 128, 3, True, False], [128, 256, 9, True, False], [256, 512, 9, True, False]]
    if strides == STRIDES:
        stages.append([512, 1024, 3, False, True])
    else:
        stages[-1] = [256, 512, 9, False, True]
    backbone = {
        "type": "CSPDarknet",
        "arch_ovewrite": stages,
        "deepen_factor": 0.33,
        "widen_factor": width,
        "out_indices": tuple(range(2, 2 + len(strides))),
    }
    channels = [int(c * width) for c in (256, 512, 1024)][: len(strides)]
    return _yolox(spec, strides, backbone, channels, spec.head_channels or int(256 * width))


def _yolox_strides(spec: DetectorSpec) -> tuple[int, ...]:
    spec.has_no("anchors")
    return spec.one_of(STRIDES, STRIDES[:2])


def _yolox(
    spec: DetectorSpec,
    strides: tuple[int, ...],
    backbone: ModelConfig,
    in_channels: list[int],
    channels: int,
) -> ModelConfig:
    """Build YOLOX over any backbone.

    in_channels: of the backbone's maps. channels: of the neck and the head.
    """
    return {
        "type": "YOLOX",
        "backbone": backbone,
        "neck": {
            "type": "YOLOXPAFPN",
            "in_channels": in_channels,
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
        "test_cfg": {
            "score_thr": spec.score_floor,
            "nms": {"type": "nms", "iou_threshold": spec.nms_iou},
        },
    }


def _yolo_anchors(spec: DetectorSpec, own: tuple[Size, ...]) -> list[list[Size]]:
    """Return the anchors of the levels, coarse first, as mmdet's head takes them."""
    levels = (
        spec.anchors.levels(STRIDES)
        if spec.anchors
        else [list(own[:3]), list(own[3:6]), list(own[6:])]
    )
    return levels[::-1]


def _anchor_head(
    spec: DetectorSpec, channels: list[int], anchors: list[list[Size]], coder: ModelConfig
) -> ModelConfig:
    summed = {"type": "CrossEntropyLoss", "use_sigmoid": True, "reduction": "sum"}
    strides = list(STRIDES[::-1])
    return {
        "type": "YOLOV3Head",
        "num_classes": len(spec.classes),
        "in_channels": channels,
        "out_channels": [2 * c for c in channels],
        "anchor_generator": {
            "type": "YOLOAnchorGenerator",
            "base_sizes": anchors,
            "strides": strides,
        },
        "bbox_coder": coder,
        "featmap_strides": strides,
        "loss_cls": summed | {"loss_weight": 1.0},
        "loss_conf": summed | {"loss_weight": 1.0},
        "loss_xy": summed | {"loss_weight": 2.0},
        "loss_wh": {"type": "MSELoss", "loss_weight": 2.0, "reduction": "sum"},
    }


def _grid_cfgs(spec: DetectorSpec) -> ModelConfig:
    assigner = {"type": "GridAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.5, "min_pos_iou": 0}
    return {
        "train_cfg": {"assigner": assigner},
        "test_cfg": {
            # A score is class times objectness, so nothing over the floor has less objectness than
            # that. Boxes are not cut by class score alone (nms_pre): with one class it hardly shows
            # which are good.
            "conf_thr": spec.score_floor,
            "nms_pre": -1,
            "min_bbox_size": 0,
            "score_thr": spec.score_floor,
            "nms": {"type": "nms", "iou_threshold": spec.nms_iou},
            "max_per_img": spec.max_boxes,
        },
    }
