"""Boxes that people drew, in three common forms: Pascal VOC, COCO, YOLO. Only their places, not their names."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from skinbatch.archive.formats import IMAGE_EXTENSIONS
from skinbatch.errors import UsageError
from skinbatch.train.voc import read_annotation

ROBOFLOW_COCO = "_annotations.coco.json"
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class BoxedPhoto:
    """Boxes of one photo. name: of the annotation. width, height: pixels of the displayed photo. xyxy: (N, 4) float64,
    pixels, as annotated: nothing is checked yet."""

    name: str
    width: float
    height: float
    xyxy: NDArray[np.float64]


def read_boxes(truth: Path) -> list[BoxedPhoto]:
    """Every annotated photo below a folder of .xml (Pascal VOC) or .txt (YOLO) files, or of a COCO .json.

    Raises UsageError naming the file and what is wrong with it, or what was looked for where there is nothing.
    """
    if truth.is_file():
        if truth.suffix.lower() == ".json":
            return list(_coco(truth))
        raise UsageError(f"{truth}: a file of boxes is a COCO .json; name the folder of .xml or .txt annotations")
    if not truth.is_dir():
        raise UsageError(f"{truth}: no such file or folder")
    voc = sorted(truth.rglob("*.xml"))
    coco = sorted(truth.rglob(ROBOFLOW_COCO))
    photos = [photo for path in voc for photo in _voc(path)] + [photo for path in coco for photo in _coco(path)]
    photos = photos or [photo for path in sorted(truth.rglob("*.txt")) for photo in _yolo(path)]
    if not photos:
        raise UsageError(
            f"{truth}: no annotations; looked for Pascal VOC .xml, {ROBOFLOW_COCO}, and YOLO .txt beside their photos "
            "(or in `labels` beside `images`)"
        )
    return photos


def _voc(path: Path) -> Iterator[BoxedPhoto]:
    xyxy, (width, height) = read_annotation(path)
    if min(width, height) <= 0:  # some tools leave it out and write 0
        photo = _photo_of(path)
        if photo is None:
            raise UsageError(f"{path}: <size> is {width:g} x {height:g}, and the photo is not beside it")
        width, height = _displayed(photo)
    yield BoxedPhoto(str(path), width, height, xyxy.astype(np.float64))


def _yolo(path: Path) -> Iterator[BoxedPhoto]:
    """class x y w h, of the centre, in shares of the photo; a line with more numbers is a polygon."""
    photo = _photo_of(path)
    if photo is None:  # classes.txt, a readme
        return
    width, height = _displayed(photo)
    boxes = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = [float(word) for word in line.split()][1:]
        except ValueError:
            values = []
        if len(values) == 4:
            x, y, w, h = values
            corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        elif len(values) >= 6 and len(values) % 2 == 0:
            corners = [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
        else:
            raise UsageError(f"{path}: line {number}: not `class x y width height` in numbers: {line[:60]!r}")
        boxes.append([corners[0] * width, corners[1] * height, corners[2] * width, corners[3] * height])
    yield BoxedPhoto(str(path), width, height, np.array(boxes, np.float64).reshape(-1, 4))


def _coco(path: Path) -> Iterator[BoxedPhoto]:
    """bbox: x y width height, pixels. Regions marked as a crowd are no boxes of one thing and left out."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        boxes: dict[Any, list[list[float]]] = {image["id"]: [] for image in data["images"]}
        for annotation in data["annotations"]:
            x, y, w, h = (float(v) for v in annotation["bbox"])
            if not annotation.get("iscrowd"):
                boxes[annotation["image_id"]].append([x, y, x + w, y + h])
        for image in data["images"]:
            width, height = _coco_size(image, path)
            name = f"{path}: {image.get('file_name', image['id'])}"
            yield BoxedPhoto(name, width, height, np.array(boxes[image["id"]], np.float64).reshape(-1, 4))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        said = f"`{e.args[0]}` is missing" if isinstance(e, KeyError) else str(e)
        raise UsageError(f"{path}: not COCO's instances (images, annotations with bbox): {said}") from None


def _coco_size(image: Mapping[str, Any], path: Path) -> tuple[float, float]:
    width, height = float(image.get("width") or 0), float(image.get("height") or 0)
    return (width, height) if min(width, height) > 0 else _displayed(path.parent / str(image["file_name"]))


def _photo_of(annotation: Path) -> Path | None:
    """The photo with the annotation's name: beside it, or in `images` where that is in `labels`."""
    folders = [annotation.parent]
    parts = annotation.parent.parts
    if "labels" in parts:
        at = len(parts) - 1 - parts[::-1].index("labels")
        folders.append(Path(*parts[:at], "images", *parts[at + 1 :]))
    for folder in folders:
        for suffix in sorted(IMAGE_EXTENSIONS):
            for spelled in (suffix, suffix.upper()):
                if (photo := folder / f"{annotation.stem}{spelled}").is_file():
                    return photo
    return None


def _displayed(photo: Path) -> tuple[float, float]:
    """Width and height from the header, turned as EXIF says."""
    try:
        with Image.open(photo) as image:
            width, height = image.size
            sideways = image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
    except (OSError, UnidentifiedImageError) as e:
        raise UsageError(f"{photo}: its size cannot be read: {e}") from None
    return (height, width) if sideways else (width, height)


@dataclass(frozen=True, slots=True)
class UsableBoxes:
    """wh: (N, 2) float64, of the boxes that are boxes, at the network's scale. left_out: reason -> the photos' names, one
    entry a box."""

    photos: int
    wh: NDArray[np.float64]
    left_out: Mapping[str, tuple[str, ...]]


def network_sizes(photos: list[BoxedPhoto], size: int, max_upscale: float) -> UsableBoxes:
    """Widths and heights as a detector sees them that scales the photo's long side to `size`, smaller photos up by
    `max_upscale` at most. Boxes that reach over the photo's edge are clipped to it."""
    left_out: dict[str, list[str]] = {"reversed": [], "empty": [], "outside the photo": [], "not a number": []}
    kept = []
    for photo in photos:
        scale = min(size / max(photo.width, photo.height), max_upscale)
        for x1, y1, x2, y2 in photo.xyxy.tolist():
            if not all(math.isfinite(v) for v in (x1, y1, x2, y2)):
                left_out["not a number"].append(photo.name)
            elif x2 < x1 or y2 < y1:
                left_out["reversed"].append(photo.name)
            elif x2 == x1 or y2 == y1:
                left_out["empty"].append(photo.name)
            elif x2 <= 0 or y2 <= 0 or x1 >= photo.width or y1 >= photo.height:
                left_out["outside the photo"].append(photo.name)
            else:
                width, height = min(x2, photo.width) - max(x1, 0.0), min(y2, photo.height) - max(y1, 0.0)
                kept.append((width * scale, height * scale))
    wh = np.array(kept, np.float64).reshape(-1, 2)
    return UsableBoxes(len(photos), wh, {reason: tuple(names) for reason, names in left_out.items() if names})
