"""What people said about photos, whatever the file it was written in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class AnnotatedPhoto:
    """One photo and what was annotated; None is "nothing was said", which is not the same as "none".

    name: the photo's key relative to its source, `/` between folders: its image_id when that source is scored. path: the
    photo's file, None where it is not there. width, height: pixels of the displayed photo, None where nobody says.
    boxes: (N, 4) float32, pixels of the displayed photo, x1 y1 x2 y2, as annotated: nothing is checked yet. labels: N names
    of the boxes' classes. classes: names of the whole photo's classes, () for none of them. severity: 0-3 (ACNE04's
    `levleN_`). masks: files of the mask: one palette PNG, or a PNG a part. group: patient or other group that must not be
    split. annotation: the file that says all this, for messages. difficult: indexes of boxes that are marked so (VOC); they are
    boxes like all others here. crowds: regions that are marked as a crowd (COCO), and are no boxes.
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
    crowds: int = 0


@dataclass(frozen=True, slots=True)
class Truth:
    """All photos of one truth, by name. root: what `name` is relative to. format: `voc`, `coco`, `yolo`, `lines`, `masks`,
    `parts`, `folders` or `csv`. class_names: of boxes or photos, in the truth's own order. unread: files beside the photos
    that are no annotations."""

    root: Path
    format: str
    photos: tuple[AnnotatedPhoto, ...]
    class_names: tuple[str, ...] = ()
    unread: tuple[Path, ...] = ()
