"""YOLOv5, v8, v11 and their like as ONNX files: pixels in, boxes in those pixels out. Needs none of their packages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from skinbatch.config import ModelSettings
from skinbatch.errors import ModelOutputError
from skinbatch.models.base import InputKind
from skinbatch.models.onnx_file import OnnxFile, Port
from skinbatch.models.stages import DetectorStage
from skinbatch.types import Detections

Layout = Literal["v5", "v8", "nms"]
LAYOUTS: tuple[Layout, ...] = ("v5", "v8", "nms")

GREY = 114
MOST_CANDIDATES = 30_000
"""Boxes that suppression compares with each other, as many as YOLO's own."""
_SLACK = 1e-3


@dataclass(frozen=True, slots=True)
class Raw:
    """Boxes of one photo as the network gives them. xyxy: (N, 4) pixels of its input. scores: (N,). labels: (N,)."""

    xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Letterboxed:
    """A photo in the middle of a grey network input. pixels: (H, W, 3). scale, offset: x and y, from photo to input."""

    pixels: NDArray[np.uint8]
    scale: tuple[float, float]
    offset: tuple[int, int]


def letterbox(photo: NDArray[np.uint8], height: int, width: int, max_upscale: float) -> Letterboxed:
    """The whole photo, proportions kept, interpolated and centred to the pixel as YOLO does. max_upscale: a smaller
    photo is enlarged at most so many times."""
    h, w = photo.shape[:2]
    scale = min(height / h, width / w, max_upscale)
    new_h, new_w = max(1, round(h * scale)), max(1, round(w * scale))
    top, left = round((height - new_h) / 2 - 0.1), round((width - new_w) / 2 - 0.1)
    pixels = np.full((height, width, 3), GREY, np.uint8)
    resized = photo if (new_h, new_w) == (h, w) else cv2.resize(photo, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    pixels[top : top + new_h, left : left + new_w] = resized
    return Letterboxed(pixels, (new_w / w, new_h / h), (left, top))


def decode(output: NDArray[np.float32], layout: Layout) -> Raw:
    """output: of one photo: `v5` (boxes, 5 + C): centre, size, objectness, classes; `v8` (4 + C, boxes): centre, size,
    classes; `nms` (boxes, 6): corners, score, class. Each box has its best class only, so that none counts twice."""
    if layout == "nms":
        return Raw(output[:, :4], output[:, 4], output[:, 5])
    if layout == "v8":
        output = output.T
        by_class = output[:, 4:]
    else:
        by_class = output[:, 5:] * output[:, 4:5]
    centre, half = output[:, :2], output[:, 2:4] / 2
    labels = by_class.argmax(1).astype(np.float32)
    return Raw(np.concatenate([centre - half, centre + half], 1), by_class.max(1), labels)


def recognise(path: Path, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Settings of a stage that the file itself answers: `layout`, `classes`, `size`, `max_upscale`, `parameters`.

    given: settings of the user's own, which go before the file's; needed are `classes` where it lacks the metadata field
    `names`, and `size` where neither its input nor the field `imgsz` says it. Raises PackError naming the input, output
    or metadata field that does not fit.
    """
    given = given or {}
    file = OnnxFile(path)
    task = file.metadata.get("task", "detect")
    if task != "detect":
        file.refuse("metadata `task`", f"is `{task}`; only `detect` is read here")
    classes = given.get("classes") or file.names()
    if classes is None:
        file.refuse("metadata `names`", "is missing; give the classes in the network's order: --classes a,b,c")
    size = file.square_side(given.get("size")) or _stated_size(file)
    output = _boxes_output(file)
    layout = given.get("layout") or _layout(file, output, len(classes), size)
    _check_output(file, output, layout, len(classes), size)
    return {
        "layout": layout,
        "classes": tuple(classes),
        "size": size,
        "max_upscale": float(size),  # YOLO enlarges a photo until it fills the input, however small it is
        "parameters": file.parameters,
    }


class YoloOnnxDetector:
    """The `Detector` protocol over one file. Precision is the file's own. Threads may share it."""

    def __init__(self, path: Path, stage: DetectorStage, settings: ModelSettings, device: str = "cpu") -> None:
        """Raises PackError naming the file and the input or output that is not as the stage says."""
        assert stage.layout is not None
        self.classes = stage.classes
        self.input: InputKind = stage.input
        self._layout: Layout = stage.layout
        self._max_upscale = stage.max_upscale
        self._score_floor = settings.score_floor
        self._nms_iou = settings.nms_iou or stage.nms_iou
        self._max_boxes = settings.max_boxes
        self._file = OnnxFile(path, device)
        self._file.square_side(stage.size)
        self._height, self._width = _extent(self._file, stage.size)
        self._output = _boxes_output(self._file)
        _check_output(self._file, self._output, self._layout, len(self.classes), stage.size)

    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """See Detector. Suppression also goes over boxes that the file has suppressed itself.

        Raises ModelOutputError for NaN or infinite numbers, a score outside [0, 1], a class that is none.
        """
        if not photos:
            return []
        prepared = [letterbox(photo, self._height, self._width, self._max_upscale) for photo in photos]
        batch = np.stack([p.pixels for p in prepared]).transpose(0, 3, 1, 2)
        outputs = self._file.run(np.asarray(batch / np.float32(255), np.float32), self._output)
        if not all(np.isfinite(output).all() for output in outputs):
            raise ModelOutputError(f"{self._name} gave NaN or infinite numbers (output `{self._output.name}`)")
        return [
            self._boxes(decode(output, self._layout), placed, photo.shape)
            for output, placed, photo in zip(outputs, prepared, photos, strict=True)
        ]

    @property
    def _name(self) -> str:
        return f"detector `yolo-onnx` ({self._file.path.name})"

    def _boxes(self, raw: Raw, placed: Letterboxed, shape: tuple[int, ...]) -> Detections:
        if raw.scores.size and not -_SLACK <= raw.scores.min() <= raw.scores.max() <= 1 + _SLACK:
            raise ModelOutputError(f"{self._name} gave scores from {raw.scores.min():.3g} to {raw.scores.max():.3g}")
        likely = np.flatnonzero(raw.scores >= self._score_floor)
        likely = likely[np.argsort(-raw.scores[likely], kind="stable")][:MOST_CANDIDATES]
        xyxy, scores, labels = raw.xyxy[likely], np.clip(raw.scores[likely], 0, 1), raw.labels[likely].astype(np.int64)
        if labels.size and not 0 <= labels.min() <= labels.max() < len(self.classes):
            raise ModelOutputError(f"{self._name} gave class {labels.max()} of {len(self.classes)}, counted from 0")
        # torchvision tells classes apart by moving their boxes, which boxes below 0 would undo.
        positive = xyxy - xyxy.min(initial=0)
        kept = batched_nms(*map(torch.from_numpy, (positive, scores, labels)), self._nms_iou).numpy()
        found = (xyxy[kept] - np.array(placed.offset * 2)) / np.array(placed.scale * 2)
        found = np.clip(found, 0, np.array([shape[1], shape[0]] * 2)).astype(np.float32)
        real = (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
        best = np.flatnonzero(real)[: self._max_boxes]
        return Detections(found[best], scores[kept][best], labels[kept][best], self._full(len(best), len(likely)))

    def _full(self, kept: int, likely: int) -> bool:
        """Whether our cap was reached, or the file's own: it declares so many rows, and leaves what it lacks at 0."""
        own_cap = self._output.shape[1] if self._layout == "nms" and len(self._output.shape) == 3 else None
        return kept >= self._max_boxes or (own_cap is not None and likely >= own_cap)


def _stated_size(file: OnnxFile) -> int:
    stated = file.literal("imgsz")
    sides = stated if isinstance(stated, list | tuple) else [stated]
    if not sides or not all(isinstance(side, int) for side in sides):
        where = f"input `{file.input.name}`"
        file.refuse(where, f"is {file.input.text} and metadata `imgsz` says no more; set size in [detector]")
    return int(max(sides))


def _extent(file: OnnxFile, size: int) -> tuple[int, int]:
    height, width = (side or size for side in file.input.shape[2:])
    stride = file.literal("stride")
    if isinstance(stride, int) and stride > 0 and (height % stride or width % stride):
        file.refuse("metadata `stride`", f"is {stride}; size has to be a multiple of it, not {size}")
    return height, width


def _boxes_output(file: OnnxFile) -> Port:
    """Exports of the first YOLOv5 carry the raw maps of its levels, of five dimensions, beside the boxes."""
    boxes = [port for port in file.outputs if len(port.shape) != 5]
    if len(boxes) != 1:
        names = ", ".join(f"`{port.name}` ({port.text})" for port in file.outputs)
        file.refuse("outputs", f"are {names}; a detector has one, its boxes: export for detection, not segmentation")
    return boxes[0]


def _wanted(layout: Layout, classes: int) -> tuple[int | None, int | None]:
    """The last two dimensions of the output; None: any number of boxes."""
    return {"v5": (None, 5 + classes), "v8": (4 + classes, None), "nms": (None, 6)}[layout]


def _fits(shape: Sequence[int], layout: Layout, classes: int) -> bool:
    wanted = _wanted(layout, classes)
    return len(shape) == 2 and all(w in (None, n) for w, n in zip(wanted, shape, strict=True))


def _check_output(file: OnnxFile, output: Port, layout: Layout, classes: int, size: int) -> None:
    shape = file.shape_of(output, *_extent(file, size))
    if not _fits(shape, layout, classes):
        wanted = " x ".join("boxes" if n is None else str(n) for n in _wanted(layout, classes))
        found = " x ".join(map(str, ("N", *shape)))
        file.refuse(f"output `{output.name}`", f"is {found}; with {classes} classes layout `{layout}` is N x {wanted}")


def _layout(file: OnnxFile, output: Port, classes: int, size: int) -> Layout:
    height, width = _extent(file, size)
    shape = file.shape_of(output, height, width)
    fitting = [layout for layout in LAYOUTS if _fits(shape, layout, classes)]
    if not fitting:
        found = " x ".join(map(str, ("N", *shape)))
        layouts = f"N x boxes x {5 + classes} (v5), N x {4 + classes} x boxes (v8), N x boxes x 6 (nms)"
        file.refuse(f"output `{output.name}`", f"is {found}; with {classes} classes a YOLO export is {layouts}")
    if len(fitting) > 1 and "nms" in fitting:
        return "nms" if _is_suppressed(file, output, height, width) else fitting[0]
    return fitting[0]


def _is_suppressed(file: OnnxFile, output: Port, height: int, width: int) -> bool:
    """Rows of six numbers are also what YOLOv5 gives for one class. Where the file does not say that it suppresses, look
    what it makes of noise: corners in order and a class, 0; or centres and sizes, and a probability, hardly ever 0."""
    arguments = file.literal("args")
    if file.literal("end2end") is True or (isinstance(arguments, dict) and arguments.get("nms") is True):
        return True
    rows = file.run(np.random.default_rng(0).random((1, 3, height, width), np.float32), output)[0]
    return bool((rows[:, 5] == 0).all() and (rows[:, 2:4] >= rows[:, :2]).all())
