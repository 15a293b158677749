"""Photos annotated in Pascal VOC's way: an .xml beside each .jpg."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from skinbatch.annotations import voc
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
    for photo in voc.read(folder).photos if folder.is_dir() else ():
        if photo.path is None:
            continue
        if photo.boxes is None or not photo.width or not photo.height:
            raise UsageError(
                f"{photo.path.with_suffix('.xml')}: is not there, or says no size; annotate the photo or take it out"
            )
        sides = photo.boxes[:, 2:] - photo.boxes[:, :2]
        boxes = photo.boxes[(sides >= smallest).all(1)]
        photos.append(Annotated(photo.path, boxes, float(max(photo.width, photo.height))))
    if not photos:
        raise UsageError(f"{folder}: no .jpg with an .xml beside it")
    return photos
