"""List the architectures of every stage, one entry each, in plain values.

`families.py` names the code that builds, imports and starts the networks of a family. No framework
is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from skinbatch.models.detectors.mmdet import faster_rcnn, ssd, yolo
from skinbatch.models.detectors.mmdet.spec import DetectorSpec, ModelConfig

StageName = Literal["segmenter", "detector", "classifier"]
Weights = Literal["public", "own", "none"]

SKIN = ("background", "skin", "nose")
ACNE = ("acne",)
LESIONS = ("comedone", "nodule", "papule", "pustule")
DISEASES = (
    "seborrheic_keratosis",
    "actinic_keratosis",
    "rosacea",
    "lupus_erythematosus",
    "basal_cell_carcinoma",
    "squamous_cell_carcinoma",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Describe an architecture of a stage.

    Attributes:
        stage: the stage that it is for.
        name: `arch` in pack.toml, in recipes and in `pack import --arch`.
        family: the code that handles it, by its name in `families.py`.
        weights: `public` if users may have weights of it, `own` if only `skinbatch train` makes
            them, `none` for the fakes. `pack architectures` lists the public ones.
        classes: assumed if neither the user nor the weights file names them.
        defaults: other fields of its stage if neither the user nor the file sets them.
        suffix: of its weights file in a pack.
        own_field: a field of the stage that it needs, and that no other architecture takes.
        own_values: what that field may be, for messages.
        timm_name: the name of a classifier's network in timm; "" if the stage's `backbone` names it.
        layers: makes the mmdet config of a detector.
        starts_from: what a detector's boxes start from, if training may change it: fitted `anchors`,
            or the `cells` of YOLOX.
    """

    stage: StageName
    name: str
    family: str
    weights: Weights = "public"
    classes: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    suffix: Literal[".safetensors", ".onnx"] = ".safetensors"
    own_field: str = ""
    own_values: str = ""
    timm_name: str = ""
    layers: Callable[[DetectorSpec], ModelConfig] | None = None
    starts_from: Literal["anchors", "cells"] | None = None

    @property
    def is_trainable(self) -> bool:
        """Return whether `skinbatch train` can make weights of it."""
        return self.weights != "none" and self.suffix == ".safetensors"


def _segmenter(name: str, size: int, weights: Weights = "public") -> Architecture:
    return Architecture(
        stage="segmenter",
        name=name,
        family="bisenet",
        weights=weights,
        classes=SKIN,
        defaults={"size": size, "spatial": "path", "align_corners": False},
    )


def _detector(
    name: str,
    layers: Callable[[DetectorSpec], ModelConfig],
    starts_from: Literal["anchors", "cells"],
    defaults: Mapping[str, Any],
    weights: Weights = "public",
) -> Architecture:
    return Architecture(
        stage="detector",
        name=name,
        family="mmdet",
        weights=weights,
        classes=ACNE,
        defaults={"max_upscale": ENLARGES, **defaults},
        layers=layers,
        starts_from=starts_from,
    )


def _classifier(name: str, timm_name: str, top: str, size: int) -> Architecture:
    return Architecture(
        stage="classifier",
        name=name,
        family="torch",
        classes=DISEASES,
        defaults={"top": top, "size": size, "outputs": "logistic"},
        timm_name=timm_name,
    )


def _fake(stage: StageName, name: str) -> Architecture:
    return Architecture(stage=stage, name=name, family="fake", weights="none")


# The value of `max_upscale` with which a photo is enlarged to the network's input however small it
# is, as in mmdet.
ENLARGES = 64.0
# Pixels as the networks of these families read them.
_HALF = {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}
_TO_ONE = {"mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0)}
_AS_IT_IS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "bgr": True, "padding": 114.0}
_RCNN = {"size": 1333, "short_side": 800}
_YOLO = {"size": 608, "nms_iou": 0.45} | _TO_ONE
_LITE = {"size": 640, "nms_iou": 0.65} | _HALF

# The defaults of detectors that mmdet has (Faster R-CNN on a ResNet, YOLOv3, YOLOX) are those of its
# public configs with the largest input, so that public weights see a photo as `--arch mmdet` with
# their config does. The others have no public weights to follow: `faster-rcnn-inception` takes the
# sizes of TensorFlow's model with Inception-v2 (short side 600, long side 1024 at most),
# `ssd-mobilenet` takes 320, a multiple of 32, instead of TensorFlow's 300, and `yolov4` takes the
# 608 of yolov4.cfg and YOLOv3's IoU. TensorFlow's SSD and yolov4.cfg stretch a photo to a square;
# here it keeps its proportions.
#
# Of the classifiers, paper 000 gives 300 pixels. Paper 002 does not give the input sizes of its
# frozen backbones; these are those of Keras, its library. timm's `legacy_xception` is the network of
# Xception's paper; `xception41` and others are DeepLab's.
_ENTRIES = (
    _segmenter("bisenet-r18", 512),
    _segmenter("bisenet-r34", 512),
    _segmenter("bisenet-light", 256),
    _segmenter("bisenet-efficientnet-lite0", 256, "own"),
    _fake("segmenter", "fake-segmenter"),
    _fake("segmenter", "fake-mortal-segmenter"),
    _detector("faster-rcnn-r50", faster_rcnn.r50, "anchors", _RCNN),
    _detector("faster-rcnn-r101", faster_rcnn.r101, "anchors", _RCNN),
    _detector(
        "faster-rcnn-inception",
        faster_rcnn.inception,
        "anchors",
        {"size": 1024, "short_side": 600} | _HALF,
    ),
    _detector("ssd-mobilenet", ssd.mobilenet, "anchors", {"size": 320} | _HALF),
    _detector("yolov3", yolo.yolov3, "anchors", _YOLO),
    _detector("yolov4", yolo.yolov4, "anchors", _YOLO),
    _detector("yolox-tiny", yolo.yolox_tiny, "cells", {"size": 416, "nms_iou": 0.65} | _AS_IT_IS),
    _detector("yolox-s", yolo.yolox_s, "cells", {"size": 640, "nms_iou": 0.65} | _AS_IT_IS),
    Architecture(
        stage="detector",
        name="mmdet",
        family="mmdet",
        classes=ACNE,
        own_field="config_sha256",
    ),
    Architecture(
        stage="detector",
        name="yolo-onnx",
        family="onnx",
        classes=ACNE,
        suffix=".onnx",
        own_field="layout",
    ),
    _detector("faster-rcnn-r18", faster_rcnn.r18, "anchors", _RCNN, "own"),
    _detector(
        "faster-rcnn-efficientnet-lite0",
        faster_rcnn.efficientnet_lite0,
        "anchors",
        {"size": 640} | _HALF,
        "own",
    ),
    _detector("yolox-efficientnet-lite0", yolo.yolox_efficientnet_lite0, "cells", _LITE, "own"),
    _detector("yolox-efficientnet-lite2", yolo.yolox_efficientnet_lite2, "cells", _LITE, "own"),
    _fake("detector", "fake-detector"),
    _classifier("resnet50", "resnet50", "pooled", 300),
    _classifier("inception_v3", "inception_v3", "pooled", 300),
    _classifier("densenet121", "densenet121", "pooled", 300),
    _classifier("xception", "legacy_xception", "pooled", 300),
    _classifier("inception_resnet_v2", "inception_resnet_v2", "pooled", 300),
    _classifier("vgg19", "vgg19", "flatten", 224),
    _classifier("efficientnet_b3", "efficientnet_b3", "flatten", 300),
    Architecture(
        stage="classifier",
        name="cnn-multilabel",
        family="torch",
        classes=LESIONS,
        defaults={
            "top": "native",
            "size": 416,
            "mean": (0.0, 0.0, 0.0),
            "std": (1.0, 1.0, 1.0),
            "outputs": "logistic",
        },
    ),
    Architecture(
        stage="classifier",
        name="timm",
        family="torch",
        classes=DISEASES,
        defaults={"top": "pooled", "outputs": "logistic"},
        own_field="backbone",
        own_values=", one of timm's names",
    ),
    Architecture(stage="classifier", name="onnx", family="onnx", classes=DISEASES, suffix=".onnx"),
    _fake("classifier", "fake-classifier"),
)
ARCHITECTURES: Mapping[str, Mapping[str, Architecture]] = {
    stage: {entry.name: entry for entry in _ENTRIES if entry.stage == stage}
    for stage in ("segmenter", "detector", "classifier")
}


def public_names(stage: str) -> tuple[str, ...]:
    """Return the architectures of a stage of which users may have weights."""
    return tuple(a.name for a in ARCHITECTURES[stage].values() if a.weights == "public")
