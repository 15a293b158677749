"""Define the mmdet detectors by name.

Each entry is a function from a few numbers to an mmdet model config.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skinbatch.errors import UsageError
from skinbatch.models.base import InputKind
from skinbatch.models.detectors.mmdet import faster_rcnn, ssd, yolo

ModelConfig = dict[str, Any]
Size = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Anchors:
    """Describe the boxes from which an anchor-based detector starts.

    scales: side of the square anchor as a multiple of the stride, for every level. ratios: height /
    width. sizes: width and height of fitted anchors in pixels of the network's input, small first,
    spread evenly over the levels; they replace scales and ratios.
    """

    scales: tuple[float, ...] = (8.0,)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    sizes: tuple[Size, ...] | None = None

    def levels(self, strides: Sequence[int]) -> list[list[Size]]:
        """Return the width and height of every anchor of every level.

        strides: of the levels, fine first.

        Raises UsageError if the fitted sizes cannot be spread evenly.
        """
        if self.sizes is None:
            shapes = [(scale, ratio**0.5) for scale in self.scales for ratio in self.ratios]
            return [
                [(stride * scale / root, stride * scale * root) for scale, root in shapes]
                for stride in strides
            ]
        number, left = divmod(len(self.sizes), len(strides))
        if left:
            raise UsageError(
                f"anchors.sizes: {len(self.sizes)} anchors cannot be spread evenly over {len(strides)} levels (strides "
                f"{', '.join(map(str, strides))}); give a multiple of {len(strides)}"
            )
        return [list(self.sizes[i * number : (i + 1) * number]) for i in range(len(strides))]


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """Describe a detector in plain values that a pack holds.

    - arch: a name in ARCHITECTURES, or `mmdet`, whose model config is `model`.
    - classes: names in label order.
    - size: long side of the network's input in pixels. Larger photos are scaled down to it, smaller
      ones up, by `max_upscale` at most.
    - short_side: an upper limit for the short side as well.
    - padding: grey of the padding to a square of `size`. With None, the input is padded with the
      mean colour to the next multiple of 32.
    - strides: of the levels that predict.
    - width: factor of the backbone's channels.
    - head_channels: of the pyramid and the head.
    - strides, width, head_channels, anchors: None for the architecture's own.
    - score_floor, nms_iou, max_boxes: of the last, class-wise suppression.
    - mean, std: per RGB channel of pixels 0-255.
    - bgr: whether the network takes its channels in the order BGR.
    """

    arch: str
    classes: tuple[str, ...]
    input: InputKind = "crop"
    size: int = 640
    max_upscale: float = 1.0
    strides: tuple[int, ...] | None = None
    head_channels: int | None = None
    anchors: Anchors | None = None
    score_floor: float = 0.05
    nms_iou: float = 0.5
    max_boxes: int = 500
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    bgr: bool = False
    width: float | None = None
    short_side: int | None = None
    padding: float | None = None
    model: ModelConfig | None = None

    def model_config(self) -> ModelConfig:
        """Return the mmdet config.

        Raises:
            UsageError: there is no such architecture, or it does not have a setting.
            PackError: a user's model does not have the classes.
        """
        if self.model is not None:
            from skinbatch.models.detectors.mmdet.config import with_settings

            return with_settings(self.model, self)
        try:
            build = ARCHITECTURES[self.arch]
        except KeyError:
            raise UsageError(
                f"no detector architecture `{self.arch}`; there are: {', '.join(ARCHITECTURES)}"
            ) from None
        return build(self)

    def has_no(self, *settings: str) -> None:
        """Raise UsageError if a setting is given that this architecture cannot change."""
        for setting in settings:
            if getattr(self, setting) is not None:
                raise UsageError(
                    f"{self.arch}: `{setting}` cannot be chosen for this architecture; leave it out"
                )

    def one_of(self, *strides: tuple[int, ...]) -> tuple[int, ...]:
        """Return the spec's strides, or the first of the possible ones.

        Raises UsageError for other strides.
        """
        if self.strides is None:
            return strides[0]
        if self.strides not in strides:
            raise UsageError(
                f"{self.arch}: strides {self.strides}; choose from {', '.join(map(str, strides))}"
            )
        return self.strides


ARCHITECTURES: Mapping[str, Callable[[DetectorSpec], ModelConfig]] = {
    "faster-rcnn-r18": faster_rcnn.r18,
    "faster-rcnn-r50": faster_rcnn.r50,
    "faster-rcnn-r101": faster_rcnn.r101,
    "faster-rcnn-inception": faster_rcnn.inception,
    "faster-rcnn-efficientnet-lite0": faster_rcnn.efficientnet_lite0,
    "ssd-mobilenet": ssd.mobilenet,
    "yolov3": yolo.yolov3,
    "yolov4": yolo.yolov4,
    "yolox-tiny": yolo.yolox_tiny,
    "yolox-s": yolo.yolox_s,
    "yolox-efficientnet-lite0": yolo.yolox_efficientnet_lite0,
    "yolox-efficientnet-lite2": yolo.yolox_efficientnet_lite2,
}

# The architectures that take anchors.
ANCHOR_BASED = tuple(arch for arch in ARCHITECTURES if not arch.startswith("yolox"))

# The value of `max_upscale` with which a photo is enlarged to the network's input however small it
# is, as in mmdet.
ENLARGES = 64.0
_HALF = {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}
_TO_ONE = {"mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0)}
_AS_IT_IS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "bgr": True, "padding": 114.0}
_SIZES: Mapping[str, Mapping[str, Any]] = {
    "faster-rcnn-r18": {"size": 1333, "short_side": 800},
    "faster-rcnn-r50": {"size": 1333, "short_side": 800},
    "faster-rcnn-r101": {"size": 1333, "short_side": 800},
    "faster-rcnn-inception": {"size": 1024, "short_side": 600} | _HALF,
    "faster-rcnn-efficientnet-lite0": {"size": 640} | _HALF,
    "ssd-mobilenet": {"size": 320} | _HALF,
    "yolov3": {"size": 608, "nms_iou": 0.45} | _TO_ONE,
    "yolov4": {"size": 608, "nms_iou": 0.45} | _TO_ONE,
    "yolox-tiny": {"size": 416, "nms_iou": 0.65} | _AS_IT_IS,
    "yolox-s": {"size": 640, "nms_iou": 0.65} | _AS_IT_IS,
    "yolox-efficientnet-lite0": {"size": 640, "nms_iou": 0.65} | _HALF,
    "yolox-efficientnet-lite2": {"size": 640, "nms_iou": 0.65} | _HALF,
}

# Fields of a detector stage for each architecture. A pack records the values it was made with. For
# architectures that mmdet has (Faster R-CNN on a ResNet, YOLOv3, YOLOX), they are those of its
# public configs with the largest input, so that public weights see a photo as `--arch mmdet` with
# their config does. The others have no public weights to follow: `faster-rcnn-inception` takes the
# sizes of TensorFlow's model with Inception-v2 (short side 600, long side 1024 at most),
# `ssd-mobilenet` takes 320, a multiple of 32, instead of TensorFlow's 300, and `yolov4` takes the
# 608 of yolov4.cfg and YOLOv3's IoU. TensorFlow's SSD and yolov4.cfg stretch a photo to a square;
# here it keeps its proportions.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    arch: {"max_upscale": ENLARGES, **_SIZES[arch]} for arch in ARCHITECTURES
}
