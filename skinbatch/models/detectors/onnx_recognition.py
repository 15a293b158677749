"""Recognise the layout of an ONNX detector's outputs.

The file's metadata decide, then its numbers on examples. Shapes only show what is possible. If
neither metadata nor numbers decide, the file is refused and the remaining layouts are named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from skinbatch.errors import UsageError
from skinbatch.models.detectors.onnx_layouts import (
    LAYOUTS,
    Numbers,
    fits,
    rows_of,
    strides_of,
    wanted_shape,
)
from skinbatch.models.findings import AS_SET
from skinbatch.models.onnx_file import OnnxFile, Port
from skinbatch.models.stages import OnnxLayout, canonical_layout

# Boxes within this limit are shares of the input's sides; boxes in pixels go beyond it.
_UNIT = 1.01
# Offsets in cells and logarithms of sizes are small; no lesion is exp(20) cells large.
_MOST_RAW = 20.0
# With this many boxes, chance no longer explains an order among their numbers.
_MANY = 50
_SLACK = 1e-3
_LABELS = ("labels", "boxes", "scores")
_SUPPRESSES = ("NonMaxSuppression", "TopK")
_ENDED = ("nms", "rtdetr-nms")


def stated_size(file: OnnxFile) -> int:
    """Return the size that the metadata give. Raises PackError if they give none."""
    stated = file.literal("imgsz")
    sides = stated if isinstance(stated, list | tuple) else [stated]
    if not sides or not all(isinstance(side, int) for side in sides):
        where = f"input `{file.input.name}`"
        file.refuse(
            where,
            f"is {file.input.text} and metadata `imgsz` does not give the size; set size in [detector]",
        )
    return int(max(sides))


def extent_of(file: OnnxFile, size: int) -> tuple[int, int]:
    """Return height and width of the input.

    Raises PackError if they are not multiples of the stated stride.
    """
    height, width = (side or size for side in file.input.shape[2:])
    stride = file.literal("stride")
    if isinstance(stride, int) and stride > 0 and (height % stride or width % stride):
        file.refuse("metadata `stride`", f"is {stride}; size must be a multiple of it, not {size}")
    return height, width


def boxes_outputs(file: OnnxFile) -> tuple[Port, ...]:
    """Return the one output with boxes, or RT-DETR's labels, boxes and scores.

    Exports of the first YOLOv5 also contain the raw maps of its levels, with five dimensions.
    """
    by_name = {port.name: port for port in file.outputs}
    if file.sizes is not None and set(by_name) == set(_LABELS):
        return tuple(by_name[name] for name in _LABELS)

    boxes = [port for port in file.outputs if len(port.shape) != 5]
    if len(boxes) != 1 or file.sizes is not None:
        names = ", ".join(f"`{port.name}` ({port.text})" for port in file.outputs)
        file.refuse(
            "outputs",
            f"are {names}; a detector has one, its boxes: export for detection, not segmentation. Among exports with several, "
            "those with `labels`, `boxes`, `scores` and the input `orig_target_sizes` are read (RT-DETR, D-FINE)",
        )
    return (boxes[0],)


def check_outputs(
    file: OnnxFile, outputs: Sequence[Port], layout: OnnxLayout, classes: int, size: int
) -> None:
    """Raise PackError for outputs whose shape does not match the layout."""
    extent = extent_of(file, size)
    if (layout == "rtdetr-labels") != (len(outputs) == 3):
        names = ", ".join(f"`{port.name}`" for port in outputs)
        file.refuse("outputs", f"are {names}; layout `{layout}` is {LAYOUTS[layout].columns}")
    if layout == "rtdetr-labels":
        shapes = [file.shape_of(port, *extent) for port in outputs]
        if [shape[1:] for shape in shapes] != [(), (4,), ()]:
            file.refuse(
                "outputs",
                f"`labels`, `boxes`, `scores` are {shapes} of a photo, not (boxes), (boxes, 4), (boxes)",
            )
        return

    shape = file.shape_of(outputs[0], *extent)
    if not fits(shape, layout, classes):
        columns = " x ".join(
            "boxes" if n is None else str(n) for n in wanted_shape(layout, classes)
        )
        where = f"output `{outputs[0].name}`"
        file.refuse(
            where,
            f"is {_shape_text(shape)}; with {classes} classes layout `{layout}` is N x {columns}",
        )
    if layout == "yolox-raw" and strides_of(shape[0], *extent) is None:
        file.refuse(
            f"output `{outputs[0].name}`",
            f"has {shape[0]} boxes, not one for each cell of strides 8, 16 and 32",
        )


def choose_layout(
    file: OnnxFile, outputs: Sequence[Port], classes: int, size: int, given: Any
) -> tuple[OnnxLayout, str]:
    """Return the layout and, in words, the reason for it. Raises PackError if nothing decides."""
    if given is not None:
        known = next((layout for layout in LAYOUTS if layout == canonical_layout(given)), None)
        if known is None:
            raise UsageError(f"{file.path}: no layout {given!r}; there are: {', '.join(LAYOUTS)}")
        return known, AS_SET
    if len(outputs) == 3:
        return "rtdetr-labels", "outputs `labels`, `boxes`, `scores` and input `orig_target_sizes`"

    (output,) = outputs
    where = f"output `{output.name}`"
    height, width = extent_of(file, size)
    shape = file.shape_of(output, height, width)
    fitting = [
        layout for layout in LAYOUTS if layout != "rtdetr-labels" and fits(shape, layout, classes)
    ]
    # If one class too many is named, rows of `v5` look like `v8-rows`, so `v8-rows` must be set.
    possible = [layout for layout in fitting if layout != "v8-rows"]
    if strides_of(shape[0], height, width) is None:
        possible = [layout for layout in possible if not LAYOUTS[layout].yolox]
    unlike = (
        f"is {_shape_text(shape)}; with {classes} classes a YOLO export is {_shapes_text(classes)}"
    )
    if not possible:
        file.refuse(where, unlike)

    stated, reason = _by_metadata(file, possible)
    if not stated:
        layouts = ", ".join(f"`{layout}`" for layout in possible)
        file.refuse(
            where, f"is {_shape_text(shape)}, which is {layouts}, but {reason}; {_way_out(fitting)}"
        )

    rows = _example_rows(file, output, height, width)
    faults = {layout: _fault(rows, layout) for layout in stated}
    if not reason:
        faults |= {
            layout: _like_corners(rows, layout) for layout, fault in faults.items() if fault is None
        }
    left = [layout for layout, fault in faults.items() if fault is None]
    if len(left) > 1:
        left = _told_apart(file, rows, left, classes)
    if len(left) == 1:
        return left[0], "; ".join(text for text in (reason, _seen(rows, left[0])) if text)
    if not left:
        excluded = "; ".join(f"not `{layout}`: {fault}" for layout, fault in faults.items())
        because = f"{reason}, but on" if reason else "on"
        file.refuse(where, f"{unlike}; {because} examples it is {excluded}. {_way_out(fitting)}")
    file.refuse(where, f"may be {_listed(left)}: nothing in the file decides. {_way_out(left)}")


def _by_metadata(file: OnnxFile, possible: Sequence[OnnxLayout]) -> tuple[list[OnnxLayout], str]:
    """Return the layouts that match the exporter's metadata, and the metadata in words."""
    left, reasons = list(possible), []
    description, head = file.metadata.get("description", ""), file.metadata.get("head", "")
    arguments = file.literal("args")
    is_detr = re.search(r"rt-?detr", head or description, re.IGNORECASE) is not None
    if is_detr or head or re.search("yolo", description, re.IGNORECASE):
        left = [layout for layout in left if layout.startswith("rtdetr") == is_detr]
        reasons.append(
            f"metadata `head` is {head!r}" if head else f"metadata `description` is {description!r}"
        )
    if file.literal("end2end") is True or (
        isinstance(arguments, dict) and arguments.get("nms") is True
    ):
        left = [layout for layout in left if layout in _ENDED]
        reasons.append("metadata `end2end` or `args` include suppression")
    if "ultralytics" in (file.metadata.get("author", "") + description).lower():
        # The package has no YOLOX, and its own YOLOv5 has the head of YOLOv8.
        left = [layout for layout in left if LAYOUTS[layout].scores != "objectness"]
        reasons = reasons or ["the metadata are Ultralytics'"]
    return left, " and ".join(reasons)


def _example_rows(file: OnnxFile, output: Port, height: int, width: int) -> list[Numbers]:
    """Return the network's output for three fields of noise, from fine to coarse.

    The result is empty if numbers are not finite.
    """
    random = np.random.default_rng(0)
    examples = []
    for cells in (max(height, width), 16, 4):
        noise = random.random((min(cells, height), min(cells, width), 3), np.float32)
        field = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
        # Neither black nor white, for which some networks work worst.
        examples.append(0.05 + 0.9 * field.transpose(2, 0, 1))
    outputs = file.run(np.stack(examples).astype(np.float32), output)
    return [rows for rows in outputs if np.isfinite(rows).all()]


def _of_boxes(examples: Sequence[Numbers], layout: OnnxLayout) -> Numbers:
    """Return every row with a box, for all examples. Rows of zeros are filling."""
    rows = [rows_of(output, layout) for output in examples]
    if not rows:
        return np.zeros((0, 6), np.float32)
    whole = np.concatenate(rows)
    return whole[(whole != 0).any(1)]


def _fault(examples: Sequence[Numbers], layout: OnnxLayout) -> str | None:
    """Return the reason why the numbers contradict a layout; None if they do not."""
    rows = _of_boxes(examples, layout)
    if not len(rows):
        return None
    kind = LAYOUTS[layout]
    boxes, sides = rows[:, :4], rows[:, 2:4]
    low, high = float(boxes.min()), float(boxes.max())
    if layout == "yolox-raw":
        if high > _MOST_RAW or low < -_MOST_RAW or (sides > 0).all():
            return (
                f"its boxes are from {low:.3g} to {high:.3g}, not offsets and logarithms in cells"
            )
    elif kind.unit and (high > _UNIT or low < 1 - _UNIT):
        return f"its boxes are from {low:.3g} to {high:.3g}, not within 0 to 1"
    elif not kind.unit and high <= _UNIT:
        return f"its boxes are from {low:.3g} to {high:.3g}, not in pixels"
    if layout == "nms" and (sides < boxes[:, :2] - _SLACK).any():
        return "its corners are not in order"
    if layout not in ("nms", "yolox-raw") and (sides < -_SLACK).any():
        return "some of its widths and heights are negative"

    scores = rows[:, 4:5] if kind.scores == "best" else rows[:, 4:]
    if scores.min() < -_SLACK or scores.max() > 1 + _SLACK:
        return f"its scores are from {scores.min():.3g} to {scores.max():.3g}, not probabilities"
    if kind.scores == "best" and not _are_classes(rows[:, 5]):
        return "its last number is not a class"
    if kind.yolox and (rows[:, 4] == 1).all():
        return "its objectness is always 1"
    return None


def _like_corners(examples: Sequence[Numbers], layout: OnnxLayout) -> str | None:
    """Return the reason why centres and sizes may be corners; None if they cannot be.

    No layout here has corners with these scores. Boxes may be corners if each is larger than its
    distance from the origin. With boxes in pixels, some are that by chance.
    """
    rows = _of_boxes(examples, layout)
    enough = len(rows) >= (1 if LAYOUTS[layout].unit else _MANY)
    if enough and layout not in ("nms", "yolox-raw") and (rows[:, 2:4] >= rows[:, :2]).all():
        return "its boxes may be corners as well"
    return None


def _told_apart(
    file: OnnxFile, examples: Sequence[Numbers], left: Sequence[OnnxLayout], classes: int
) -> list[OnnxLayout]:
    """Return the layouts that remain when rows of six numbers are examined.

    Such a row ends in a score and a class, or in two scores. A logistic score is hardly ever whole,
    a class always is.
    """
    ended = [layout for layout in left if layout in _ENDED]
    rows = _of_boxes(examples, ended[0]) if ended else np.zeros((0, 6), np.float32)
    if len(rows):
        is_class = bool((rows[:, 5] < classes).all())
        return ended if is_class else [layout for layout in left if layout not in _ENDED] or ended
    if ended and all(not output.any() for output in examples) and file.operators & set(_SUPPRESSES):
        # A file that finds nothing in noise leaves zeros. Only files that choose boxes themselves
        # do that.
        return [layout for layout in ended if layout == "nms"]
    return list(left)


def _are_classes(numbers: Numbers) -> bool:
    return bool((numbers == numbers.round()).all() and (numbers >= 0).all())


def _seen(examples: Sequence[Numbers], layout: OnnxLayout) -> str:
    """Describe for people what the numbers showed."""
    rows = _of_boxes(examples, layout)
    if not len(rows):
        return "no box on examples"
    low, high = rows[:, :4].min(), rows[:, :4].max()
    kind = "whole numbers last" if LAYOUTS[layout].scores == "best" else "scores within 0 to 1"
    return f"on examples its boxes are from {low:.3g} to {high:.3g}, with {kind}"


def _way_out(layouts: Sequence[OnnxLayout]) -> str:
    kinds: Mapping[str, str] = {layout: LAYOUTS[layout].columns for layout in layouts}
    listed = "; ".join(
        f"layout = {layout!r}: {columns}" for layout, columns in kinds.items()
    ).replace("'", '"')
    return f"If it is one of these, set it in a file for --config ({listed})"


def _shapes_text(classes: int) -> str:
    return (
        f"N x boxes x {5 + classes} (v5, yolox), N x {4 + classes} x boxes (v8), N x boxes x {4 + classes} (rtdetr; v8-rows "
        "if that is set as layout in a file for --config), N x boxes x 6 (nms)"
    )


def _listed(layouts: Sequence[OnnxLayout]) -> str:
    names = [f"`{layout}`" for layout in layouts]
    return " or ".join([", ".join(names[:-1]), names[-1]])


def _shape_text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, ("N", *shape)))
