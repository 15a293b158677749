"""Define SSD (Liu 2016) with MobileNet as an mmdet model config."""

from __future__ import annotations

from itertools import pairwise

from skinbatch.models.detectors.mmdet.spec import DetectorSpec, ModelConfig, Size

# Maps a stride to the index and the channels of timm's feature.
BACKBONE = {8: (2, 256), 16: (3, 512), 32: (4, 1024)}
# Maps a stride to the channels of the level that SSD adds.
EXTRA = {64: 512, 128: 256, 256: 256, 512: 128}
RATIOS = (1.0, 2.0, 0.5, 3.0, 1 / 3)
SMALLEST, LARGEST = 0.2, 0.95


def mobilenet(spec: DetectorSpec) -> ModelConfig:
    """Build SSD over timm's MobileNet v1, the network of paper 003, which mmdet does not have.

    It has levels at the last layers of stride 16 and 32 and four more, with a 3 x 3 convolution on
    each. It is trained with smooth L1 and cross-entropy with hard negatives.

    strides: a run that begins at 8 or 16 and ends at 64 or beyond. By default there are six anchors
    per level, whose sides go from 0.2 to 0.95 of the input's long side, with ratios 1, 2, 1/2, 3,
    1/3 and a larger square (TensorFlow's model of the same name).

    No public weights have its layer names: TensorFlow's and mmdet's SSDLite (MobileNet v2) are
    other networks.
    """
    spec.has_no("width", "head_channels")
    all_strides = (*BACKBONE, *EXTRA)
    begin_at_16 = [all_strides[1:last] for last in range(7, 3, -1)]
    strides = spec.one_of(*begin_at_16, *(all_strides[:last] for last in range(7, 3, -1)))
    taken = [BACKBONE[stride] for stride in strides if stride in BACKBONE]
    first = [channels for _, channels in taken]
    extra = [EXTRA[stride] for stride in strides if stride in EXTRA]
    sizes = spec.anchors.levels(strides) if spec.anchors else _sizes(spec.size, len(strides))
    layers = {
        "norm_cfg": {"type": "BN", "eps": 0.001, "momentum": 0.03},
        "act_cfg": {"type": "ReLU6"},
    }
    return {
        "type": "SingleStageDetector",
        "backbone": {
            "type": "TimmFeatures",
            "name": "mobilenetv1_100",
            "out_indices": [index for index, _ in taken],
        },
        "neck": {
            "type": "SSDNeck",
            "in_channels": first,
            "out_channels": first + extra,
            "level_strides": [2] * len(extra),
            "level_paddings": [1] * len(extra),
            "l2_norm_scale": None,
            **layers,
        },
        "bbox_head": {
            "type": "SSDHead",
            "in_channels": first + extra,
            "num_classes": len(spec.classes),
            "anchor_generator": {
                "type": "YOLOAnchorGenerator",
                "strides": list(strides),
                "base_sizes": sizes,
            },
            "bbox_coder": {
                "type": "DeltaXYWHBBoxCoder",
                "target_means": [0.0] * 4,
                "target_stds": [0.1, 0.1, 0.2, 0.2],
            },
            **layers,
        },
        "train_cfg": {
            "assigner": {
                "type": "MaxIoUAssigner",
                "pos_iou_thr": 0.5,
                "neg_iou_thr": 0.5,
                "min_pos_iou": 0.0,
                "ignore_iof_thr": -1,
                "gt_max_assign_all": False,
            },
            "sampler": {"type": "PseudoSampler"},
            "smoothl1_beta": 1.0,
            "allowed_border": -1,
            "pos_weight": -1,
            "neg_pos_ratio": 3,
            "debug": False,
        },
        "test_cfg": {
            "nms_pre": 1000,
            "min_bbox_size": 0,
            "score_thr": spec.score_floor,
            "nms": {"type": "nms", "iou_threshold": spec.nms_iou},
            "max_per_img": spec.max_boxes,
        },
    }


def _sizes(side: int, levels: int) -> list[list[Size]]:
    """Return the sizes of every level.

    The larger square lies between this level's side and the next one's.
    """
    step = (LARGEST - SMALLEST) / (levels - 1)
    sides = [side * (SMALLEST + step * level) for level in range(levels)] + [float(side)]
    return [
        [(own / ratio**0.5, own * ratio**0.5) for ratio in RATIOS] + [((own * after) ** 0.5,) * 2]
        for own, after in pairwise(sides)
    ]
