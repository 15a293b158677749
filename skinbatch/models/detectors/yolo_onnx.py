"""Run detectors from ONNX files: pixels in, boxes in those pixels out.

None of their packages is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from skinbatch.config import ModelSettings
from skinbatch.errors import ModelOutputError, UsageError
from skinbatch.models.detectors.onnx_layouts import ALWAYS_RGB, LAYOUTS, Raw, decode
from skinbatch.models.detectors.onnx_recognition import (
    boxes_outputs,
    check_outputs,
    choose_layout,
    extent_of,
    stated_size,
)
from skinbatch.models.findings import Recognised
from skinbatch.models.onnx_file import OnnxFile
from skinbatch.models.preprocess import channel_table, look_up
from skinbatch.models.protocols import InputKind
from skinbatch.models.runtime.runtime import Runtime
from skinbatch.models.stages import DetectorStage, OnnxLayout
from skinbatch.types import Detections

GREY = 114
# The most boxes that suppression compares with each other, as in YOLO's own code.
MOST_CANDIDATES = 30_000
_SLACK = 1e-3


@dataclass(frozen=True, slots=True)
class Letterboxed:
    """Hold a photo in the network's input.

    pixels: (H, W, 3). scale, offset: x and y, from photo to input.
    """

    pixels: NDArray[np.uint8]
    scale: tuple[float, float]
    offset: tuple[int, int]


def letterbox(photo: NDArray[np.uint8], height: int, width: int, max_upscale: float) -> Letterboxed:
    """Place the whole photo in the input, interpolated and centred to the pixel as YOLO does.

    Proportions are kept. max_upscale: limit to the enlargement of a smaller photo.
    """
    h, w = photo.shape[:2]
    scale = min(height / h, width / w, max_upscale)
    new_h, new_w = max(1, round(h * scale)), max(1, round(w * scale))
    top, left = round((height - new_h) / 2 - 0.1), round((width - new_w) / 2 - 0.1)
    return _placed(photo, (height, width), (new_h, new_w), (top, left))


def place(
    photo: NDArray[np.uint8], layout: OnnxLayout, height: int, width: int, max_upscale: float
) -> Letterboxed:
    """Place a photo in the input as the layout's own code does.

    max_upscale: see `letterbox`; a stretched photo is always stretched to the whole input.
    """
    how = LAYOUTS[layout].place
    if how == "centre":
        return letterbox(photo, height, width, max_upscale)
    if how == "stretch":
        return _placed(photo, (height, width), (height, width), (0, 0))
    h, w = photo.shape[:2]
    scale = min(height / h, width / w, max_upscale)
    return _placed(photo, (height, width), (max(1, int(h * scale)), max(1, int(w * scale))), (0, 0))


def _placed(
    photo: NDArray[np.uint8], extent: tuple[int, int], new: tuple[int, int], at: tuple[int, int]
) -> Letterboxed:
    (h, w), (new_h, new_w), (top, left) = photo.shape[:2], new, at
    pixels = np.full((*extent, 3), GREY, np.uint8)
    resized = (
        photo
        if new == (h, w)
        else cv2.resize(photo, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    )
    pixels[top : top + new_h, left : left + new_w] = resized
    return Letterboxed(pixels, (new_w / w, new_h / h), (left, top))


def recognise(path: Path, given: Mapping[str, Any] | None = None) -> Recognised:
    """Return the settings of a stage that follow from the file itself.

    Args:
        path: the ONNX file.
        given: settings that the user set; they override the file's. `classes` is needed if the file
            lacks the metadata field `names`, `size` if neither its input nor the field `imgsz`
            gives it, `layout` if nothing decides.

    Returns:
        `layout`, `classes`, `size`, `max_upscale`, `mean`, `std`, `bgr`, `parameters`, `strides` of
        `yolox-raw`.

    Raises:
        PackError: names the input, output or metadata field that does not fit, or the layouts that
            remain possible.
    """
    given = given or {}
    file = OnnxFile(path)
    task = file.metadata.get("task", "detect")
    if task != "detect":
        file.refuse("metadata `task`", f"is `{task}`; only `detect` is supported here")
    classes = given.get("classes") or file.names()
    if classes is None:
        file.refuse(
            "metadata `names`",
            "is missing; give the classes in the network's order: --classes a,b,c",
        )

    side = file.square_side(given.get("size"))
    size = side or stated_size(file)
    outputs = boxes_outputs(file)
    layout, why = choose_layout(file, outputs, len(classes), size, given.get("layout"))
    check_outputs(file, outputs, layout, len(classes), size)
    if (names := file.names()) is not None and len(names) != len(classes):
        file.refuse(
            "metadata `names`", f"has {len(names)} classes ({', '.join(names)}), not {len(classes)}"
        )
    set_in_vain = [
        name for name in ("mean", "std", "bgr") if name in given and layout in ALWAYS_RGB
    ]
    if set_in_vain:
        raise UsageError(
            f"{path}: layout `{layout}` reads {LAYOUTS[layout].reads}; leave out `{set_in_vain[0]}`, which would not be applied"
        )
    fields: dict[str, Any] = {
        "layout": layout,
        "classes": tuple(classes),
        "size": size,
        "max_upscale": float(size),  # YOLO enlarges any photo until it fills the input
        "parameters": file.parameters,
    }
    if layout not in ALWAYS_RGB:
        fields |= LAYOUTS[layout].pixels
    sources = {
        "layout": why,
        "classes": "metadata `names`",
        "size": f"input `{file.input.name}`" if side is not None else "metadata `imgsz`",
        "pixels": f"as the code that layout `{layout}` comes from reads photos",
    }
    return Recognised(fields, sources)


class YoloOnnxDetector:
    """Implement the `Detector` protocol with one ONNX file.

    The file decides the precision. Threads may share it.
    """

    def __init__(
        self,
        path: Path,
        stage: DetectorStage,
        settings: ModelSettings,
        device: str = "cpu",
        runtime: Runtime | None = None,
    ) -> None:
        """Load the file.

        Raises PackError naming the file and the input or output that does not match the stage.
        """
        assert stage.layout is not None
        self.classes = stage.classes
        self.input: InputKind = stage.input
        self._layout: OnnxLayout = stage.layout
        self._max_upscale = stage.max_upscale
        self._score_floor = settings.score_floor
        self._nms_iou = settings.nms_iou or stage.nms_iou
        self._max_boxes = settings.max_boxes
        self._file = OnnxFile(path, device)
        self._file.square_side(stage.size)
        self._height, self._width = extent_of(self._file, stage.size)
        self._outputs = boxes_outputs(self._file)
        check_outputs(self._file, self._outputs, self._layout, len(self.classes), stage.size)
        self._file.run_with(runtime or Runtime(), self._outputs, self._height, self._width)
        self._stage = stage
        self._table = channel_table(self._scaled)

    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Return the boxes of each photo, see Detector.

        Suppression is also applied to boxes that the file has suppressed itself.

        Raises ModelOutputError for NaN or infinite numbers, a score outside [0, 1], or an invalid
        class.
        """
        if not photos:
            return []
        extent = self._height, self._width
        prepared = [place(photo, self._layout, *extent, self._max_upscale) for photo in photos]
        batch = self._input([p.pixels for p in prepared])
        raw = self._file.run_all(batch, self._outputs)
        for port, outputs in zip(self._outputs, zip(*raw, strict=True), strict=True):
            if not all(np.isfinite(output).all() for output in outputs):
                raise ModelOutputError(
                    f"{self._name} gave NaN or infinite numbers (output `{port.name}`)"
                )
        return [
            self._boxes(decode(outputs, self._layout, *extent), placed, photo.shape)
            for outputs, placed, photo in zip(raw, prepared, photos, strict=True)
        ]

    def _input(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return (N, 3, H, W) float32 as the layout reads it. pixels: (H, W, 3) uint8 RGB each."""
        batch = np.empty((len(pixels), *pixels[0].shape), np.float32)
        for row, photo in zip(batch, pixels, strict=True):
            look_up(photo, self._table, row)

        planes = batch.transpose(0, 3, 1, 2)
        is_bgr = self._stage.bgr and self._layout not in ALWAYS_RGB
        return planes[:, ::-1] if is_bgr else planes

    def _scaled(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (..., 3) float32, still RGB. pixels: (..., 3) uint8 RGB."""
        if self._layout in ALWAYS_RGB:
            return np.asarray(pixels / np.float32(255), np.float32)
        mean, std = (np.array(three, np.float32) for three in (self._stage.mean, self._stage.std))
        return np.asarray((pixels - mean) / std, np.float32)

    @property
    def _name(self) -> str:
        return f"detector `yolo-onnx` ({self._file.path.name})"

    def _boxes(self, raw: Raw, placed: Letterboxed, shape: tuple[int, ...]) -> Detections:
        if raw.scores.size and not -_SLACK <= raw.scores.min() <= raw.scores.max() <= 1 + _SLACK:
            raise ModelOutputError(
                f"{self._name} gave scores from {raw.scores.min():.3g} to {raw.scores.max():.3g}"
            )
        likely = np.flatnonzero(raw.scores >= self._score_floor)
        likely = likely[np.argsort(-raw.scores[likely], kind="stable")][:MOST_CANDIDATES]
        if not np.isfinite(raw.xyxy[likely]).all():  # the exponential of a large number is infinite
            raise ModelOutputError(f"{self._name} gave boxes of infinite size")
        xyxy, scores, labels = (
            raw.xyxy[likely],
            np.clip(raw.scores[likely], 0, 1),
            raw.labels[likely].astype(np.int64),
        )
        if labels.size and not 0 <= labels.min() <= labels.max() < len(self.classes):
            raise ModelOutputError(
                f"{self._name} gave class {labels.max()} of {len(self.classes)}, counted from 0"
            )
        # torchvision separates classes by moving their boxes, which boxes below 0 would undo.
        positive = xyxy - xyxy.min(initial=0)
        kept = batched_nms(
            *map(torch.from_numpy, (positive, scores, labels)), self._nms_iou
        ).numpy()
        in_photo = (xyxy[kept] - np.array(placed.offset * 2)) / np.array(placed.scale * 2)
        in_photo = np.clip(in_photo, 0, np.array([shape[1], shape[0]] * 2)).astype(np.float32)
        real = (in_photo[:, 2] > in_photo[:, 0]) & (in_photo[:, 3] > in_photo[:, 1])
        best = np.flatnonzero(real)[: self._max_boxes]
        return Detections(
            in_photo[best],
            scores[kept][best],
            labels[kept][best],
            self._full(len(best), len(likely)),
        )

    def _full(self, kept: int, likely: int) -> bool:
        """Return whether our box cap was reached, or the file's own.

        The file declares its number of rows, and leaves unused ones at 0.
        """
        shape = self._outputs[-1].shape
        is_capped = self._layout == "nms" or self._layout.startswith("rtdetr")
        own_cap = shape[1] if is_capped and len(shape) > 1 else None
        return kept >= self._max_boxes or (own_cap is not None and likely >= own_cap)
