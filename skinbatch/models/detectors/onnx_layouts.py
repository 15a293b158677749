"""Define the layouts of an ONNX detector's outputs, and how each network takes its photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skinbatch.models.stages import OnnxLayout

Numbers = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OutputLayout:
    """Describe one layout of a detector's outputs.

    Attributes:
        columns: the numbers of a box, for people.
        scores: `classes` for one score per class, `objectness` for an objectness before them,
            `best` for a score and the number of a class.
        unit: boxes are in 0 to 1 of the input's sides, not in its pixels.
        place: how a photo is put into the input: with grey around it (`centre`), with grey to the
            right and below (`corner`), or `stretch`.
        yolox: photos are BGR in 0 to 255, not RGB in 0 to 1.
    """

    columns: str
    scores: Literal["classes", "objectness", "best"]
    unit: bool = False
    place: Literal["centre", "corner", "stretch"] = "centre"
    yolox: bool = False

    @property
    def pixels(self) -> Mapping[str, object]:
        """Return the fields of the stage that make colours as in the network's own code."""
        zero = (0.0, 0.0, 0.0)
        if self.yolox:
            return {"mean": zero, "std": (1.0, 1.0, 1.0), "bgr": True}
        return {"mean": zero, "std": (255.0, 255.0, 255.0), "bgr": False}

    @property
    def reads(self) -> str:
        """Describe the same for people."""
        colours = "BGR, 0 to 255" if self.yolox else "RGB, 0 to 1"
        placed = {
            "centre": "in the middle of grey",
            "corner": "in the upper left of grey",
            "stretch": "stretched to the input",
        }
        return f"{colours}, {placed[self.place]}"


LAYOUTS: Mapping[OnnxLayout, OutputLayout] = {
    "v5": OutputLayout("centre, size, objectness, a score a class", "objectness"),
    "v8": OutputLayout("centre, size, a score a class", "classes"),
    "v8-rows": OutputLayout("a row a box of centre, size, a score a class", "classes"),
    "nms": OutputLayout("corners, score, class", "best"),
    "rtdetr": OutputLayout(
        "centre and size in 0 to 1, a score a class", "classes", unit=True, place="stretch"
    ),
    "rtdetr-nms": OutputLayout(
        "centre and size in 0 to 1, score, class", "best", unit=True, place="stretch"
    ),
    "rtdetr-labels": OutputLayout("three outputs: labels, boxes, scores", "best", place="stretch"),
    "yolox": OutputLayout(
        "centre, size, objectness, a score a class", "objectness", place="corner", yolox=True
    ),
    "yolox-raw": OutputLayout(
        "offset and logarithm of the size in cells, objectness, a score a class",
        "objectness",
        place="corner",
        yolox=True,
    ),
}

# YOLO as its own exporters write it. These layouts read RGB in 0 to 1, whatever mean, std and bgr a
# pack records.
ALWAYS_RGB = ("v5", "v8", "v8-rows", "nms")

# The strides of YOLOX's levels: three, or four in its networks for large inputs.
STRIDES = ((8, 16, 32), (8, 16, 32, 64))


@dataclass(frozen=True, slots=True)
class Raw:
    """Hold the boxes of one photo as the network gives them.

    xyxy: (N, 4) pixels of its input. scores: (N,). labels: (N,).
    """

    xyxy: Numbers
    scores: Numbers
    labels: Numbers


def wanted_shape(layout: OnnxLayout, classes: int) -> tuple[int | None, int | None]:
    """Return the last two dimensions of the output; None for any number of boxes."""
    if layout == "v8":
        return (4 + classes, None)
    return (
        None,
        {"classes": 4 + classes, "objectness": 5 + classes, "best": 6}[LAYOUTS[layout].scores],
    )


def fits(shape: Sequence[int], layout: OnnxLayout, classes: int) -> bool:
    """Return whether an output of one photo may have the layout."""
    sides = wanted_shape(layout, classes)
    return len(shape) == 2 and all(n in (None, side) for n, side in zip(sides, shape, strict=True))


def rows_of(output: Numbers, layout: OnnxLayout) -> Numbers:
    """Return an output of one photo as one row per box."""
    return output.T if layout == "v8" else output


def strides_of(
    boxes: int, height: int, width: int, stated: Sequence[int] | None = None
) -> tuple[int, ...] | None:
    """Return the strides of a network that gives one box for each cell of its levels.

    Returns None if no strides give that number of boxes.
    """
    for strides in [tuple(stated)] if stated else STRIDES:
        if sum((height // stride) * (width // stride) for stride in strides) == boxes:
            return strides
    return None


def decode(outputs: Sequence[Numbers], layout: OnnxLayout, height: int, width: int) -> Raw:
    """Return the boxes of one photo in pixels of the network's input.

    Each box has its best class only, so that none counts twice.

    Args:
        outputs: of one photo: one array, or labels, boxes and scores.
        layout: one of LAYOUTS.
        height: of the input.
        width: of the input.
    """
    if layout == "rtdetr-labels":
        labels, boxes, scores = outputs
        return Raw(boxes, scores, labels)

    rows = rows_of(outputs[0], layout)
    if layout == "nms":
        return Raw(rows[:, :4], rows[:, 4], rows[:, 5])
    boxes = _from_cells(rows[:, :4], height, width) if layout == "yolox-raw" else rows[:, :4]
    if LAYOUTS[layout].unit:
        boxes = boxes * np.array([width, height] * 2, np.float32)
    xyxy = _corners(boxes)
    if LAYOUTS[layout].scores == "best":
        return Raw(xyxy, rows[:, 4], rows[:, 5])
    by_class = rows[:, 5:] * rows[:, 4:5] if LAYOUTS[layout].scores == "objectness" else rows[:, 4:]
    return Raw(xyxy, by_class.max(1), by_class.argmax(1).astype(np.float32))


def _corners(boxes: Numbers) -> Numbers:
    centre, half = boxes[:, :2], boxes[:, 2:4] / 2
    return np.concatenate([centre - half, centre + half], 1)


def _from_cells(boxes: Numbers, height: int, width: int) -> Numbers:
    """Convert YOLOX's offsets from a cell's corner and log sizes in cells to pixels."""
    strides = strides_of(len(boxes), height, width)
    assert strides is not None, "an output is checked when the file is loaded"
    corners, sides = [], []
    for stride in strides:
        y, x = np.mgrid[: height // stride, : width // stride]
        corners.append(np.stack([x.ravel(), y.ravel()], 1))
        sides.append(np.full((x.size, 1), stride, np.float32))
    side = np.concatenate(sides)
    centre = (boxes[:, :2] + np.concatenate(corners)) * side
    with np.errstate(over="ignore"):  # the caller reports infinite sizes
        size = np.exp(boxes[:, 2:]) * side
    return np.concatenate([centre, size], 1).astype(np.float32)
