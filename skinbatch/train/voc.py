"""Photos annotated in Pascal VOC's way: an .xml beside each .jpg."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from skinbatch.errors import UsageError


@dataclass(frozen=True, slots=True)
class Annotated:
    """One photo with its boxes: (N, 4) float32, pixels, x1 y1 x2 y2. Names are not kept: one class. long_side: pixels."""

    path: Path
    boxes: NDArray[np.float32]
    long_side: float

    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB. Raises UsageError naming the file when it will not decode."""
        return read_rgb(self.path)


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image file. Raises UsageError naming it when it will not decode."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise UsageError(f"{path}: not a readable image")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def read_folder(folder: Path, smallest: float = 4.0) -> list[Annotated]:
    """Photos of a folder by name; boxes narrower or lower than `smallest` pixels are slips of the hand and dropped.

    Raises UsageError when there are none, or naming the annotation that cannot be read.
    """
    photos = []
    for path in sorted(folder.glob("*.jpg")):
        xyxy, (width, height) = read_annotation(path.with_suffix(".xml"))
        sides = xyxy[:, 2:] - xyxy[:, :2]
        photos.append(Annotated(path, xyxy[(sides >= smallest).all(1)], max(width, height)))
    if not photos:
        raise UsageError(f"{folder}: no .jpg with an .xml beside it")
    return photos


def read_annotation(path: Path) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Boxes (N, 4) of one .xml as they stand there, x1 y1 x2 y2, and width and height of the photo, pixels.

    Raises UsageError naming the file and the tag.
    """
    try:
        root = ElementTree.parse(path).getroot()
        boxes = [_box(node) for node in root.iter("bndbox")]
        size = _number(root, "size/width"), _number(root, "size/height")
    except (OSError, ElementTree.ParseError, ValueError) as e:
        raise UsageError(f"{path}: no Pascal VOC annotation: {e}") from None
    return np.array(boxes, np.float32).reshape(-1, 4), size


def _box(node: ElementTree.Element) -> list[float]:
    """By tag: some exports write xmin, xmax, ymin, ymax in this order."""
    return [_number(node, tag) for tag in ("xmin", "ymin", "xmax", "ymax")]


def _number(node: ElementTree.Element, tag: str) -> float:
    text = node.findtext(tag)
    if text is None:
        raise ValueError(f"a <{node.tag}> without <{tag}>")
    return float(text)
