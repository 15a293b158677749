"""Define the stages of a pack as pack.toml describes them: plain values, validated.

No framework is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from skinbatch.models.architectures import ARCHITECTURES, Architecture, StageName
from skinbatch.models.protocols import InputKind

Triple = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]
PositiveTriple = tuple[Positive, Positive, Positive]
Classes = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=32, le=4096)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1)]

OnnxLayout = Literal[
    "v5", "v8", "v8-rows", "nms", "rtdetr", "rtdetr-nms", "rtdetr-labels", "yolox", "yolox-raw"
]

# Other names of layouts, taken from the networks that use them.
LAYOUT_ALIASES = {
    "yolov5": "v5",
    "yolov7": "v5",
    "yolov8": "v8",
    "yolov11": "v8",
    "yolo11": "v8",
    "yolov10": "nms",
    "end2end": "nms",
}


def canonical_layout(name: Any) -> Any:
    """Return the layout for an alias, and any other value unchanged."""
    return LAYOUT_ALIASES.get(name, name) if isinstance(name, str) else name


class Section(BaseModel):
    """Hold a table of pack.toml. It is frozen, and unknown settings are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Stage(Section):
    """Describe what all stages have in common.

    sha256: of its weights file. parameters, source, licence: change no number.

    NAME: of the stage. LATER: fields that were added after the first packs had scored. At their
    defaults they do not change the fingerprint.
    """

    NAME: ClassVar[StageName]
    LATER: ClassVar[frozenset[str]] = frozenset()

    arch: str
    classes: Classes
    sha256: Sha256 | None = None
    parameters: Annotated[int, Field(ge=0)] | None = None
    source: str = ""
    licence: str | None = None

    @field_validator("arch")
    @classmethod
    def _check_arch(cls, arch: str) -> str:
        known = [f"'{name}'" for name in ARCHITECTURES[cls.NAME]]
        if f"'{arch}'" not in known:
            expected = f"{', '.join(known[:-1])} or {known[-1]}"
            raise PydanticCustomError(
                "literal_error", "Input should be {expected}", {"expected": expected}
            )
        return arch

    @model_validator(mode="after")
    def _check(self) -> Stage:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class is named twice")
        if self.sha256 is None and self.architecture.weights != "none":
            raise ValueError("sha256 of the weights file is missing")
        for known in ARCHITECTURES[self.NAME].values():
            if not known.own_field:
                continue
            is_given = getattr(self, known.own_field) is not None
            if is_given != (known is self.architecture):
                raise ValueError(
                    f"arch `{known.name}` needs {known.own_field}{known.own_values}, "
                    "and no other arch takes it"
                )
        return self

    @property
    def architecture(self) -> Architecture:
        """Return the entry of the stage's architecture."""
        return ARCHITECTURES[self.NAME][self.arch]

    @property
    def network(self) -> str:
        """Return what people call the network: its architecture, or its name in timm."""
        return self.arch

    @property
    def suffix(self) -> str:
        """Return the suffix of the weights file."""
        return self.architecture.suffix

    def numbers(self) -> dict[str, Any]:
        """Return everything that changes what this stage computes."""
        as_ever = {
            name
            for name in self.LATER
            if getattr(self, name) == type(self).model_fields[name].default
        }
        without_effect = {"parameters", "source", "licence", "threshold"}
        return self.model_dump(mode="json", exclude=without_effect | as_ever, exclude_none=True)


class SegmenterStage(Stage):
    """Describe [segmenter].

    - mean, std: per RGB channel, of pixels in [0, 1].
    - size: side of the network's square input, in pixels.
    - spatial: the source of the fine feature: a `path` of its own (the paper), or the feature of
      the `context` path's backbone at 1/8 (the public face-parsing checkpoint).
    - align_corners: how its logits are interpolated to full size.
    - closeups: the network was trained on close-ups too. A photo that is all skin then has the view
      `closeup`, and one of its class `body`, skin of other parts of the body, the view `body`
      (grading.face).
    """

    NAME = "segmenter"
    LATER = frozenset(("spatial", "align_corners", "closeups"))

    size: Annotated[Pixels, Field(multiple_of=32)] = 256
    mean: Triple = (0.485, 0.456, 0.406)
    std: PositiveTriple = (0.229, 0.224, 0.225)
    spatial: Literal["path", "context"] = "path"
    align_corners: bool = False
    closeups: bool = False

    @model_validator(mode="after")
    def _check_classes(self) -> SegmenterStage:
        missing = {"background", "skin", "nose"} - set(self.classes)
        if missing:
            raise ValueError(f"a segmenter's classes include {', '.join(sorted(missing))}")
        return self


class AnchorSection(Section):
    """Describe [detector.anchors].

    Either `sizes`: width and height of fitted anchors in pixels of the network's input, small
    first, spread evenly over the levels. Or `scales` (multiples of the stride) and `ratios` (height
    / width).
    """

    scales: Annotated[tuple[Positive, ...], Field(min_length=1)] = (8.0,)
    ratios: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    sizes: Annotated[tuple[tuple[Positive, Positive], ...], Field(min_length=1)] | None = None


class TilingSection(Section):
    """Describe [detector.tiling].

    - above: the detector's input is cut into tiles if its longer side is over this, in pixels.
    - tile: side of a tile in pixels of the input. By default it is the network's `size`, so that
      every pixel is seen as it is; larger tiles are shrunk to it.
    - overlap: share of a tile that it has in common with its neighbour. Larger lesions are joined
      from their parts.
    """

    above: Annotated[int, Field(ge=64)]
    tile: Pixels | None = None
    overlap: Annotated[float, Field(ge=0.05, le=0.5)] = 0.2


class DetectorStage(Stage):
    """Describe [detector].

    - mean, std: per RGB channel, of pixels 0-255.
    - threshold: the score from which a box is counted.
    - short_side: an upper limit for the short side of the input as well.
    - padding: grey of the padding to a square of `size`. Without it, the input is padded with the
      mean colour to the next multiple of 32.
    - nms_iou: boxes of a class that overlap more are one.
    - config_sha256: of `detector.json`, the model of a user's own mmdet config (arch `mmdet`).
    - layout: the meaning of an ONNX file's outputs (arch `yolo-onnx`):
      - `v5` (YOLOv5, v6, v7): centre, size, objectness, a score per class; in pixels of the input,
        like the next two.
      - `v8` (YOLOv8, v9, 11, 12): centre, size, a score per class. `v8-rows`: the same, turned to
        one row per box.
      - `nms` (YOLOv10, 26, and exports with nms): corners, score, class.
      - `rtdetr` (RT-DETR by Ultralytics): centre and size in 0 to 1, a score per class.
        `rtdetr-nms`: with score and class.
      - `rtdetr-labels` (RT-DETR's own export, D-FINE): labels, boxes and scores as three outputs.
      - `yolox`: as `v5`. `yolox-raw`: the same before it is decoded, in cells of the grid. Both
        read BGR in 0 to 255.
    """

    NAME = "detector"

    input: InputKind = "crop"
    size: Pixels = 640
    short_side: Pixels | None = None
    max_upscale: Annotated[float, Field(ge=0.01)] = 1.0
    padding: Annotated[float, Field(ge=0, le=255)] | None = None
    strides: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    width: Annotated[float, Field(gt=0, le=4)] | None = None
    head_channels: Annotated[int, Field(ge=1, le=2048)] | None = None
    anchors: AnchorSection | None = None
    mean: Triple = (123.675, 116.28, 103.53)
    std: PositiveTriple = (58.395, 57.12, 57.375)
    bgr: bool = False
    nms_iou: Annotated[float, Field(gt=0, le=1)] = 0.5
    tiling: TilingSection | None = None
    config_sha256: Sha256 | None = None
    layout: Annotated[OnnxLayout, BeforeValidator(canonical_layout)] | None = None
    threshold: Fraction = 0.25


class CalibrationTable(Section):
    """Describe [classifier.calibration]: probabilities are computed from scale * logits + shift.

    shift: one number per class.
    """

    scale: Positive
    shift: Annotated[tuple[float, ...], Field(min_length=1)]


class ClassifierStage(Stage):
    """Describe [[classifier]].

    - head: its name, with which its columns begin unless it is `disease`.
    - backbone: with arch `timm`, any of timm's names.
    - top: the layers above the backbone. `pooled` is the head of paper 000 (1 x 1 convolution,
      average, 1024, outputs), `flatten` that of paper 002 (flatten, dropout, outputs), `native` the
      network's own.
    - fit: `crop` takes the centre square, `pad` the whole photo.
    - outputs: how probabilities are computed from the network's numbers: `logistic` each by itself,
      `softmax` all together, `none` if the file does it (ONNX).
    - threshold: there is no top class below this probability.
    - calibration: corrects the probabilities to match observed frequencies, see CalibrationTable.
    """

    NAME = "classifier"
    LATER = frozenset(("top", "calibration"))

    head: Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")] = "disease"
    backbone: Name | None = None
    top: Literal["pooled", "flatten", "native"] = "pooled"
    input: InputKind = "crop"
    size: Pixels = 224
    fit: Literal["crop", "pad"] = "crop"
    mean: Triple = (0.485, 0.456, 0.406)
    std: PositiveTriple = (0.229, 0.224, 0.225)
    outputs: Literal["logistic", "softmax", "none"] = "logistic"
    threshold: Fraction = 0.5
    calibration: CalibrationTable | None = None

    @model_validator(mode="after")
    def _check_parts(self) -> ClassifierStage:
        if self.calibration is not None and len(self.calibration.shift) != len(self.classes):
            raise ValueError(
                f"calibration: `shift` has {len(self.calibration.shift)} numbers for {len(self.classes)} classes; give one each"
            )
        if self.calibration is not None and (
            self.outputs == "none" or self.architecture.weights == "none"
        ):
            raise ValueError(
                "calibration goes with outputs `logistic` or `softmax`, which are made of logits"
            )
        if self.arch == "cnn-multilabel" and self.top != "native":
            raise ValueError(
                "arch `cnn-multilabel` has no backbone to put a top on; its top is `native`"
            )
        if self.outputs == "none" and self.arch != "onnx":
            raise ValueError("outputs `none` goes with arch `onnx`")
        return self

    @property
    def network(self) -> str:
        return self.backbone or self.arch


AnyStage = SegmenterStage | DetectorStage | ClassifierStage
STAGES: Mapping[str, type[SegmenterStage] | type[DetectorStage] | type[ClassifierStage]] = {
    "segmenter": SegmenterStage,
    "detector": DetectorStage,
    "classifier": ClassifierStage,
}
