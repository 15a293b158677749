"""Hold what people annotated on photos, independent of the file format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Properties that the readers count but do not keep.
OUTLINES, MARKS = "outlines (segmentation)", "VOC marks (pose, truncated, occluded)"
ROTATED, OCCLUDED = "rotated boxes (the box around them is kept)", "marks of occluded boxes"
EMBEDDED = "photos within their annotations (imageData)"


@dataclass(frozen=True, slots=True)
class AnnotatedPhoto:
    """Hold one photo and its annotations. None means that nothing was annotated.

    Attributes:
        name: the photo's key relative to its source, with `/` between folders. It is the image_id
            when that source is scored.
        annotation: the file with the annotations, for messages.
        path: the photo's file; None if it does not exist.
        width, height: pixels of the displayed photo; None if unknown.
        boxes: (N, 4) float32, pixels of the displayed photo, x1 y1 x2 y2, as annotated. Only
            swapped corners have been put right; nothing else has been checked.
        labels: N names of the boxes' classes.
        classes: names of the whole photo's classes; () for none of them.
        severity: 0-3 (ACNE04's `levleN_`).
        masks: files of the mask: one palette PNG, or a PNG for each part.
        group: patient or other group that must not be split.
        difficult: indices of boxes with VOC's mark. They are treated like all other boxes.
        crowd_boxes: (M, 4) float32, like boxes: regions that are marked as a crowd (COCO) and do
            not show a single thing; None if there are none.
        crowd_labels: M names of their classes.
        not_kept: other properties of the boxes in the file (OUTLINES, MARKS) -> how often.
        swapped: indices of boxes whose corners were swapped and have been put right. Those of
            crowd_boxes follow on.
        written: the name as in a list, which may be relative to another folder.
    """

    name: str
    annotation: Path
    path: Path | None = None
    width: int | None = None
    height: int | None = None
    boxes: NDArray[np.float32] | None = None
    labels: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    severity: int | None = None
    masks: tuple[Path, ...] | None = None
    group: str | None = None
    difficult: frozenset[int] = frozenset()
    crowd_boxes: NDArray[np.float32] | None = None
    crowd_labels: tuple[str, ...] = ()
    not_kept: Mapping[str, int] = field(default_factory=dict)
    swapped: frozenset[int] = frozenset()
    written: str | None = None

    @property
    def is_annotated(self) -> bool:
        """Return whether the photo has boxes, classes, a severity or a mask."""
        return any(
            part is not None for part in (self.boxes, self.classes, self.severity, self.masks)
        )


@dataclass(frozen=True, slots=True)
class Truth:
    """Hold all photos of one truth, by name.

    Attributes:
        root: the folder that names are relative to.
        format: one of `read.FORMATS`.
        class_names: of boxes or photos, in the truth's own order.
        unread: files beside the photos that are no annotations.
    """

    root: Path
    format: str
    photos: tuple[AnnotatedPhoto, ...]
    class_names: tuple[str, ...] = ()
    unread: tuple[Path, ...] = ()
