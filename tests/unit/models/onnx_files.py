"""Export small networks of known arithmetic to ONNX: a detector of coloured squares in every layout, a classifier."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import nms

SKIN = (205, 160, 140)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
COLOURS = (RED, GREEN, BLUE)
SQUARE = 16
STRIDE = 4
FILE_ROWS = 20


class SquareYolo(nn.Module):
    """Detect squares of SQUARE pixels, class i in colour i, on a grid of STRIDE.

    The score is 1 where a square fills a window and less at the windows beside it, whose boxes
    suppression has to remove. x: (N, 3, H, W) in [0, 1].
    """

    def __init__(self, classes: int, layout: str) -> None:
        super().__init__()
        kernels = torch.full((classes, 3, 1, 1), -1.0)
        for i in range(classes):
            kernels[i, i] = 1.0
        self.colours = nn.Conv2d(3, classes, 1, bias=False)
        self.colours.weight = nn.Parameter(kernels)
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        seen = F.avg_pool2d(self.colours(x).clamp(0, 1), SQUARE, STRIDE)
        scores = ((seen - 0.6) / 0.4).clamp(0, 1)
        rows, columns = scores.shape[2:]
        y, x_ = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centres = torch.stack([x_, y]).reshape(1, 2, -1).to(x.dtype) * STRIDE + SQUARE / 2
        centres = centres.expand(scores.shape[0], -1, -1)
        boxes = torch.cat([centres, torch.full_like(centres, SQUARE)], 1)
        by_class = scores.flatten(2)
        if self.layout == "v8":
            return torch.cat([boxes, by_class], 1)
        if self.layout == "v5":
            objectness = by_class.max(1, keepdim=True).values
            return torch.cat([boxes, objectness, (by_class > 0).to(x.dtype)], 1).transpose(1, 2)
        return torch.stack(
            [self._suppressed(b, s) for b, s in zip(boxes.unbind(), by_class.unbind(), strict=True)]
        )

    def _suppressed(self, boxes: Tensor, by_class: Tensor) -> Tensor:
        """Return FILE_ROWS rows of corners, score and class, padded with 0."""
        best, label = by_class.max(0)
        half = boxes[2:] / 2
        xyxy = torch.cat([boxes[:2] - half, boxes[:2] + half]).t()
        best, order = best.topk(100)
        xyxy, label = xyxy[order], label[order]
        kept = nms((xyxy + label[:, None] * 4096).float(), best.float(), 0.7)
        rows = torch.cat([xyxy[kept], best[kept, None], label[kept, None].to(boxes.dtype)], 1)
        rows = rows * (rows[:, 4:5] > 0).to(boxes.dtype)
        return F.pad(rows, (0, 0, 0, FILE_ROWS))[:FILE_ROWS]


def export(
    network: nn.Module,
    path: Path,
    shape: tuple[int, int, int, int],
    *,
    open_axes: Sequence[int] = (),
    half: bool = False,
    metadata: Mapping[str, str] | None = None,
    outputs: Sequence[str] = ("output0",),
) -> Path:
    """Write a file with the input `images`.

    open_axes: dimensions of the input that stay open; if 0 is one of them, the outputs' first one
    does too.
    """
    example = torch.rand(shape)
    if half:
        network, example = network.half(), example.half()
    axes = {"images": {axis: f"axis{axis}" for axis in open_axes}}
    if 0 in open_axes:
        axes |= {name: {0: "axis0"} for name in outputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about itself
        torch.onnx.export(
            network.eval(),
            (example,),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            output_names=list(outputs),
            dynamic_axes=axes,
        )
    if metadata:
        model = onnx.load(path)
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.save(model, path)
    return path


def yolo(
    path: Path,
    layout: str,
    *,
    classes: Sequence[str] = ("papule", "pustule"),
    size: int = 64,
    batch: int | None = None,
    metadata: Mapping[str, str] | None = None,
    half: bool = False,
) -> Path:
    """Write a SquareYolo file.

    batch: fixed; None leaves it open, where the layout allows it: suppression is for one photo.
    """
    written = {"names": str(dict(enumerate(classes))), "stride": "32", "imgsz": str([size, size])}
    fixed = batch or (1 if layout == "nms" else None)
    return export(
        SquareYolo(len(classes), layout),
        path,
        (fixed or 1, 3, size, size),
        open_axes=() if fixed else (0,),
        half=half,
        metadata=written if metadata is None else metadata,
    )


def photo_with(
    height: int, width: int, squares: Sequence[tuple[int, int, int, tuple[int, int, int]]]
) -> NDArray[np.uint8]:
    """Return skin with squares: x, y, side, colour."""
    photo = np.full((height, width, 3), SKIN, np.uint8)
    for x, y, side, colour in squares:
        photo[y : y + side, x : x + side] = colour
    return photo
