"""Read what people annotated on photos, in any supported format."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skinbatch.annotations import (
    coco,
    cvat,
    folders,
    label_studio,
    labelme,
    lines,
    masks,
    part_masks,
    table,
    voc,
    yolo,
)
from skinbatch.annotations.annotated_photos import AnnotatedPhoto, Truth
from skinbatch.errors import UsageError
from skinbatch.tables.names import composed


@dataclass(frozen=True, slots=True)
class _Format:
    """Recognise and read a format.

    Attributes:
        photos: `read` takes a folder of photos apart from the annotations.
        by_photos: `fits` takes it too, because only the photos make such files recognisable.
    """

    fits: Callable[..., bool]
    read: Callable[..., Truth]
    looked_for: str
    photos: bool = True
    by_photos: bool = False

    def suits(self, path: Path, photos: Path | None) -> bool:
        """Return whether there are annotations of this format."""
        return self.fits(path, photos) if self.by_photos else self.fits(path)


_ANNOTATED: Mapping[str, _Format] = {
    "voc": _Format(voc.fits, voc.read, voc.LOOKED_FOR),
    "coco": _Format(coco.fits, coco.read, coco.LOOKED_FOR),
    "label-studio": _Format(label_studio.fits, label_studio.read, label_studio.LOOKED_FOR),
    "cvat": _Format(cvat.fits, cvat.read, cvat.LOOKED_FOR),
    "labelme": _Format(labelme.fits, labelme.read, labelme.LOOKED_FOR),
    "yolo": _Format(yolo.fits, yolo.read, yolo.LOOKED_FOR, by_photos=True),
    "lines": _Format(lines.fits, lines.read, lines.LOOKED_FOR),
    "masks": _Format(masks.fits, masks.read, masks.LOOKED_FOR, by_photos=True),
    "parts": _Format(part_masks.fits, part_masks.read, part_masks.LOOKED_FOR, photos=False),
}
# Looked for only if nothing else fits, in this order: nearly every truth has folders, and many have
# a .csv beside them.
_PLAIN: Mapping[str, _Format] = {
    "csv": _Format(table.fits, table.read, table.LOOKED_FOR),
    "folders": _Format(folders.fits, folders.read, folders.LOOKED_FOR, photos=False),
}
_ALL = {**_ANNOTATED, **_PLAIN}
FORMATS = tuple(_ALL)


def read_truth(
    path: str | Path,
    format: str | None = None,
    *,
    group: str | None = None,
    photos: str | Path | None = None,
    split: str | None = None,
) -> Truth:
    """Return all annotated photos of a folder or file, and the photos there without annotations.

    Args:
        path: The annotations.
        format: One of FORMATS; None: recognised by content.
        group: The column of a .csv that names patients or other groups.
        photos: The folder of the photos, if they are not beside the annotations.
        split: Read only `train`, `val` or `test` of a data.yaml that has splits. Other truths have
            no splits and are read completely.

    Returns:
        The photos by name. Boxes whose corners were swapped are put right, and counted in each
        photo's `swapped`.

    Raises:
        UsageError: Annotations cannot be read, or no format fits. The message names the file, its
            line or field, and the way out.

    Example:
        >>> read_truth("truth.csv").photos[0].boxes.shape
        (4, 4)
    """
    path = Path(path)
    if str(path).startswith("s3:/"):
        raise UsageError(f"{path}: truth is read from this machine's files; copy it here")
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if format is not None and format not in _ALL:
        raise UsageError(f"no format {format!r}; there are {', '.join(FORMATS)}")

    folder = None if photos is None else _photo_folder(Path(photos))
    format = format or _format_of(path, folder)
    options: dict[str, Any] = {}
    if folder is not None:
        if not _ALL[format].photos:
            raise UsageError(
                f"{folder}: a truth of format {format!r} contains its photos; leave out the folder of photos"
            )
        options["photos"] = folder
    if format == "csv":
        options["group"] = group
    if format == "yolo":
        options["split"] = split
    truth = _ALL[format].read(path, **options)

    if not any(_says(photo) for photo in truth.photos):
        raise UsageError(f"{path}: no annotations; looked for {_ALL[format].looked_for}")
    named: dict[str, Path] = {}
    for photo in truth.photos:
        name = photo.name if photo.path is not None else composed(photo.name)
        if (before := named.get(name)) is not None:
            twice = (
                f"{before} and {photo.annotation}"
                if before != photo.annotation
                else f"{before}, twice"
            )
            raise UsageError(
                f"{path}: {photo.name} is annotated in {twice}; keep one, or name the right file"
            )
        named[name] = photo.annotation
    in_order = sorted(truth.photos, key=lambda photo: photo.name)
    return dataclasses.replace(
        truth,
        photos=tuple(_composed(put_right(photo)) for photo in in_order),
        class_names=tuple(dict.fromkeys(map(composed, truth.class_names))),
    )


def refuse_wrong_units(truth: Truth) -> None:
    """Raise UsageError for boxes in shares of the photo where pixels are due, and for the reverse.

    Boxes are in shares if all of them lie within one pixel. A box of YOLO is in pixels if, read as
    shares, it is as large as its photo and its centre lies off the photo.
    """
    for photo in truth.photos:
        if truth.format != "yolo" or photo.boxes is None or not photo.width or not photo.height:
            continue
        size = np.array([photo.width, photo.height])
        large = (photo.boxes[:, 2:] - photo.boxes[:, :2] >= size).all(axis=1)
        off = (photo.boxes[:, 2:] + photo.boxes[:, :2] >= 2 * size).all(axis=1)
        if (large & off).any():
            raise UsageError(
                f"{photo.annotation}: has boxes in pixels; YOLO's numbers are fractions of the photo's sides: "
                "divide x and width by its width, y and height by its height"
            )

    boxes = [photo.boxes for photo in truth.photos if photo.boxes is not None and len(photo.boxes)]
    if truth.format != "yolo" and boxes and all(((box >= 0) & (box <= 1)).all() for box in boxes):
        raise UsageError(
            f"{truth.root}: all its boxes lie within 0 to 1, which is less than a pixel; if they are fractions "
            "of the photos' sides, multiply them by the photos' width and height"
        )


def put_right(photo: AnnotatedPhoto) -> AnnotatedPhoto:
    """Return the photo with the corners of each box sorted, upper left first."""
    if photo.boxes is None:
        return photo
    boxes, swapped = _sorted_corners(photo.boxes)
    crowds, swapped_crowds = photo.crowd_boxes, frozenset[int]()
    if crowds is not None:
        crowds, swapped_crowds = _sorted_corners(crowds)
    if not swapped and not swapped_crowds:
        return photo
    counted_on = frozenset(len(boxes) + n for n in swapped_crowds)
    return dataclasses.replace(photo, boxes=boxes, crowd_boxes=crowds, swapped=swapped | counted_on)


def _composed(photo: AnnotatedPhoto) -> AnnotatedPhoto:
    """Return the photo with classes and group in Unicode's composed form, for comparison."""
    texts = [*(photo.labels or ()), *(photo.classes or ()), *photo.crowd_labels, photo.group or ""]
    if all(text.isascii() for text in texts):
        return photo
    return dataclasses.replace(
        photo,
        labels=None if photo.labels is None else tuple(map(composed, photo.labels)),
        classes=None
        if photo.classes is None
        else tuple(dict.fromkeys(map(composed, photo.classes))),
        crowd_labels=tuple(map(composed, photo.crowd_labels)),
        group=None if photo.group is None else composed(photo.group),
    )


def _sorted_corners(boxes: NDArray[np.float32]) -> tuple[NDArray[np.float32], frozenset[int]]:
    """Return boxes with x1 <= x2 and y1 <= y2, and the indices of those that were swapped."""
    wrong = (boxes[:, :2] > boxes[:, 2:]).any(axis=1)
    if not wrong.any():
        return boxes, frozenset()
    corners = np.sort(boxes.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    corners[~wrong] = boxes[~wrong]
    return corners, frozenset(np.flatnonzero(wrong).tolist())


def _photo_folder(photos: Path) -> Path:
    if not photos.is_dir():
        raise UsageError(f"{photos}: no such folder of photos")
    return photos


def _says(photo: AnnotatedPhoto) -> bool:
    """Return whether a photo has any annotation, even one in a file that lost its photo."""
    return photo.annotation != photo.path or photo.is_annotated


def _format_of(path: Path, photos: Path | None) -> str:
    """Return the format that fits the content."""
    fitting = [name for name, form in _ANNOTATED.items() if form.suits(path, photos)]
    if len(fitting) > 1:
        several = " and ".join(_ALL[name].looked_for for name in fitting)
        raise UsageError(
            f"{path}: there are {several}; choose one: format = {' or '.join(map(repr, fitting))} "
            "(--format of evaluate, --from of export)"
        )
    fitting = fitting or [name for name, form in _PLAIN.items() if form.suits(path, photos)]
    if not fitting:
        raise UsageError(
            f"{path}: no annotations; looked for {'; '.join(f.looked_for for f in _ALL.values())}"
        )
    return fitting[0]
