"""pack.toml: what the models of a pack are. Read without any framework, so that a driver can."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from skinbatch.errors import PackError
from skinbatch.models.base import InputKind

FILENAME = "pack.toml"
FAKES = ("fake-segmenter", "fake-mortal-segmenter", "fake-detector", "fake-classifier")

Triple = tuple[float, float, float]
Classes = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=32, le=4096)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Stage(_Section):
    """What every stage says of itself. parameters and source change no number."""

    arch: str
    classes: Classes
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    parameters: Annotated[int, Field(ge=0)] | None = None
    source: str = ""

    @model_validator(mode="after")
    def _check(self) -> _Stage:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class is named twice")
        if self.sha256 is None and self.arch not in FAKES:
            raise ValueError("sha256 of the weights file is missing")
        return self

    def numbers(self) -> dict[str, Any]:
        """Everything that changes what this stage computes."""
        return self.model_dump(mode="json", exclude={"parameters", "source", "threshold"})


class SegmenterStage(_Stage):
    """[segmenter] mean, std: per RGB channel, of pixels in [0, 1]. size: side of the network's square input."""

    arch: Literal["bisenet-r18", "bisenet-light", "fake-segmenter", "fake-mortal-segmenter"]
    size: Annotated[Pixels, Field(multiple_of=32)] = 256
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _check_classes(self) -> SegmenterStage:
        missing = {"background", "skin", "nose"} - set(self.classes)
        if missing:
            raise ValueError(f"a segmenter's classes include {', '.join(sorted(missing))}")
        return self


class AnchorSection(_Section):
    """[detector.anchors] scales: multiples of the stride. ratios: height / width."""

    scales: Annotated[tuple[float, ...], Field(min_length=1)] = (8.0,)
    ratios: Annotated[tuple[float, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)


class DetectorStage(_Stage):
    """[detector] mean, std: per RGB channel, of pixels 0-255. threshold: from where on a box is counted."""

    arch: Literal["yolox-tiny", "faster-rcnn-r18", "fake-detector"]
    input: InputKind = "crop"
    size: Pixels = 640
    max_upscale: Annotated[float, Field(gt=0)] = 1.0
    strides: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    width: Annotated[float, Field(gt=0)] | None = None
    head_channels: Annotated[int, Field(ge=1)] | None = None
    anchors: AnchorSection | None = None
    mean: Triple = (123.675, 116.28, 103.53)
    std: Triple = (58.395, 57.12, 57.375)
    bgr: bool = False
    nms_iou: Annotated[float, Field(gt=0, le=1)] = 0.5
    tiling: Literal[False] = False
    threshold: Fraction


class ClassifierStage(_Stage):
    """[[classifier]] arch `timm`: the backbone is any of timm's. fit: `crop` takes the centre square, `pad` the whole
    photo. outputs `logistic`: one probability a class, each for itself. threshold: below it there is no top class."""

    head: Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")] = "disease"
    arch: Literal["timm", "fake-classifier"]
    backbone: str | None = None
    input: InputKind = "crop"
    size: Pixels = 224
    fit: Literal["crop", "pad"] = "crop"
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    outputs: Literal["logistic"] = "logistic"
    threshold: Fraction

    @model_validator(mode="after")
    def _check_backbone(self) -> ClassifierStage:
        if self.arch == "timm" and not self.backbone:
            raise ValueError("arch `timm` needs the name of a backbone")
        return self


class Manifest(_Section):
    """The whole of pack.toml."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: str
    description: str = ""
    licence: str
    segmenter: SegmenterStage
    detector: DetectorStage
    classifier: tuple[ClassifierStage, ...] = ()

    @model_validator(mode="after")
    def _check_heads(self) -> Manifest:
        heads = [stage.head for stage in self.classifier]
        if len(set(heads)) != len(heads):
            raise ValueError("two classifiers have the same head")
        return self


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a pack's directory. Raises PackError naming the file and every setting that is wrong."""
    path = directory / FILENAME
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackError(f"{path}: not there; a pack is a directory with a {FILENAME}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise PackError(f"{path}: not readable as TOML: {e}") from None
    try:
        # Strict validation of JSON takes arrays for tuples and 1 for 1.0, as TOML's writers expect.
        return Manifest.model_validate_json(json.dumps(data, default=str))
    except ValidationError as e:
        raise PackError("\n".join(_explain(error, path) for error in e.errors())) from None


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Write pack.toml; what is None is left out."""
    data = manifest.model_dump(mode="json", exclude_none=True)
    tables = {name: data.pop(name) for name in ("segmenter", "detector")}
    classifiers = data.pop("classifier")
    lines = _pairs(data)
    for name, table in tables.items():
        lines += _table(f"[{name}]", name, table)
    for table in classifiers:
        lines += _table("[[classifier]]", "classifier", table)
    (directory / FILENAME).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(header: str, name: str, table: dict[str, Any]) -> list[str]:
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    lines = ["", header, *_pairs({key: value for key, value in table.items() if key not in inner})]
    for key, value in inner.items():
        lines += ["", f"[{name}.{key}]", *_pairs(value)]
    return lines


def _pairs(table: dict[str, Any]) -> list[str]:
    # JSON's scalars and arrays are TOML's too, apart from null, which is left out, and DEL, which TOML wants escaped.
    return [
        f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f") for key, value in table.items()
    ]


def _explain(error: Any, path: Path) -> str:
    name = ".".join(str(part) for part in error["loc"]) or "pack"
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown setting `{name}`"
    if error["type"] == "missing":
        return f"{path}: setting `{name}` is missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{path}: `{name}`: {message}"
    return f"{path}: setting `{name}`: {message} (got {error['input']!r})"
