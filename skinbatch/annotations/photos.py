"""What people said about photos, whatever the file it was written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

OUTLINES, MARKS = "outlines (segmentation)", "VOC marks (pose, truncated, occluded)"
ROTATED, OCCLUDED = "rotated boxes (the box around them is kept)", "marks of occluded boxes"
EMBEDDED = "photos within their annotations (imageData)"
"""What the readers count and do not keep."""


@dataclass(frozen=True, slots=True)
class AnnotatedPhoto:
    """One photo and what was annotated; None is "nothing was said", which is not the same as "none".

    name: the photo's key relative to its source, `/` between folders: its image_id when that source is scored. path: the
    photo's file, None where it is not there. width, height: pixels of the displayed photo, None where nobody says.
    boxes: (N, 4) float32, pixels of the displayed photo, x1 y1 x2 y2, as annotated but for swapped corners: nothing else is
    checked yet. labels: N names of the boxes' classes. classes: names of the whole photo's classes, () for none of them.
    severity: 0-3 (ACNE04's `levleN_`). masks: files of the mask: one palette PNG, or a PNG a part. group: patient or other
    group that must not be split. annotation: the file that says all this, for messages. difficult: indexes of boxes that are
    marked so (VOC); they are boxes like all others here. crowd_boxes: (M, 4) float32, as boxes: regions that are marked as a
    crowd (COCO), and are no boxes of one thing; None where there are none. crowd_labels: M names of their classes. not_kept:
    what else the file says of the boxes (OUTLINES, MARKS) -> how often. swapped: indexes of boxes whose corners were written
    the wrong way round and were put right, those of crowd_boxes counted on. written: the name as a list gives it, which may
    be relative to another folder.
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


@dataclass(frozen=True, slots=True)
class Truth:
    """All photos of one truth, by name. root: what `name` is relative to. format: one of
    `read.FORMATS`. class_names: of boxes or photos, in the truth's own order. unread: files beside the photos
    that are no annotations."""

    root: Path
    format: str
    photos: tuple[AnnotatedPhoto, ...]
    class_names: tuple[str, ...] = ()
    unread: tuple[Path, ...] = ()
