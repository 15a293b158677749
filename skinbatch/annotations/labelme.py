"""Read LabelMe: a .json for each photo, which contains the photo's relative path.

X-AnyLabeling writes the same format.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import os
import posixpath
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from skinbatch.annotations.annotated_photos import (
    EMBEDDED,
    OUTLINES,
    ROTATED,
    AnnotatedPhoto,
    Truth,
)
from skinbatch.annotations.displayed import UNREADABLE, displayed_size, turned_size
from skinbatch.annotations.json_file import json_kind, load_json
from skinbatch.annotations.severity import severity_of
from skinbatch.annotations.shapes import Point, around, around_ellipse
from skinbatch.annotations.tree import Tree
from skinbatch.errors import UsageError

LOOKED_FOR = "LabelMe .json files beside their photos"
_TURNED = ("rotation", "oriented_rectangle")
_NO_AREA = ("point", "points", "line", "linestrip")
_LOOKED_AT = 20


def fits(path: Path) -> bool:
    """Return whether a path is a .json of LabelMe, or a folder with some."""
    if path.is_file():
        return path.suffix.lower() == ".json" and json_kind(path) == "labelme"
    tree = Tree(path)
    return any(json_kind(tree.path(key)) == "labelme" for key in tree.ending(".json")[:_LOOKED_AT])


def read(path: Path, photos: Path | None = None) -> Truth:
    """Return the photos of every LabelMe file of `path`, and the photos there without one.

    Polygons, circles, masks and turned rectangles become the boxes around them. Shapes of one
    `group_id` and label are one box, as in LabelMe's own converters. Flags that are set become
    classes of the photo.

    photos: the folder of the photos, if they are not at the paths in the files.

    Raises:
        UsageError: Something cannot be read, such as points, which are no boxes. The message names
            the file and the shape.
    """
    folder = path.parent if path.is_file() else path
    annotations = Tree(folder)
    keys = [path.name] if path.is_file() else annotations.ending(".json")
    files = [annotations.path(key) for key in keys]
    files = [file for file in files if path.is_file() or json_kind(file) == "labelme"]

    beside = Tree(photos, loose=True) if photos is not None else annotations
    readers = {file: _LabelMeFile(file) for file in files}
    places = {file: one.place(beside, apart=photos is not None) for file, one in readers.items()}

    there = [place for place in places.values() if place is not None]
    root = beside.root
    if not all(place.is_relative_to(root) for place in there):
        # The files are in a folder of their own, so photos are named from the folder that has all
        # of them.
        root = Path(os.path.commonpath([place.parent for place in there]))
    annotated = [one.photo(places[file], root) for file, one in readers.items()]

    tree = beside if root == beside.root else Tree(root)
    taken = set(there)
    for key in tree.photos if not path.is_file() else ():
        if tree.path(key) not in taken:
            annotated.append(
                AnnotatedPhoto(key, tree.path(key), tree.path(key), severity=severity_of(key))
            )
    names = {label for photo in annotated for label in photo.labels or ()}
    return Truth(root, "labelme", tuple(annotated), tuple(sorted(names)))


class _LabelMeFile:
    """Read one file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        data = load_json(file, "LabelMe's annotations")
        if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
            raise UsageError(f"{file}: not LabelMe's annotations: `shapes` is not a list")
        self._data: dict[str, Any] = data
        self._boxes: list[list[float]] = []
        self._labels: list[str] = []
        self._not_kept: Counter[str] = Counter()
        groups: dict[tuple[str, Any], int] = {}
        for number, shape in enumerate(data["shapes"], 1):
            self._take(shape, f"{file}: shape {number}", groups)

    @property
    def image(self) -> str:
        """Return the photo's relative path, with slashes; '' if the file has none."""
        return str(self._data.get("imagePath") or "").replace("\\", "/")

    def place(self, photos: Tree, apart: bool) -> Path | None:
        """Return the photo's file: at `imagePath`, or beside the .json under either name.

        apart: the photos are in a folder of their own.
        """
        names = [self.image, posixpath.basename(self.image)] if self.image else []
        if not apart:
            for name in names:
                path = Path(os.path.normpath(self.file.parent / name))
                if path.is_file():
                    return path
            near = self.file.parent.relative_to(photos.root).as_posix().removeprefix(".")
            named = [posixpath.join(near, name) for name in names[1:]]
            keys = [photos.photo(name) for name in named]
            keys += photos.all_beside(posixpath.join(near, self.file.name))[:1]
        else:
            keys = [photos.find(name) for name in names] + [photos.find(self.file.stem)]
        return next((photos.path(key) for key in keys if key is not None), None)

    def photo(self, path: Path | None, root: Path) -> AnnotatedPhoto:
        """Return the photo, named from `root`."""
        if path is not None:
            name = path.relative_to(root).as_posix()
        else:
            name = posixpath.basename(self.image) or self.file.stem
            if self._data.get("imageData"):
                self._not_kept[EMBEDDED] += 1
        width, height = self._size(path)
        return AnnotatedPhoto(
            name,
            self.file,
            path,
            width,
            height,
            np.array(self._boxes, np.float32).reshape(-1, 4),
            tuple(self._labels),
            self._flags(),
            severity=severity_of(name),
            not_kept=dict(self._not_kept),
        )

    def _take(self, shape: Any, where: str, groups: dict[tuple[str, Any], int]) -> None:
        if not isinstance(shape, dict):
            raise UsageError(f"{where} is not a shape of LabelMe")
        kind = str(shape.get("shape_type") or "polygon")
        box = _box(kind, _points(shape, where), where)
        if kind in _TURNED:
            self._not_kept[ROTATED] += 1
        elif kind != "rectangle":
            self._not_kept[OUTLINES] += 1

        label, group = str(shape.get("label") or "").strip(), shape.get("group_id")
        before = (
            groups.setdefault((label, group), len(self._boxes))
            if group is not None
            else len(self._boxes)
        )
        if before < len(self._boxes):
            x1, y1, x2, y2 = self._boxes[before]
            self._boxes[before] = around([(x1, y1), (x2, y2), (box[0], box[1]), (box[2], box[3])])
            return
        self._boxes.append(box)
        self._labels.append(label)

    def _flags(self) -> tuple[str, ...] | None:
        flags = self._data.get("flags")
        if not isinstance(flags, Mapping) or not flags:
            return None
        return tuple(name for name, is_set in flags.items() if is_set)

    def _size(self, path: Path | None) -> tuple[int | None, int | None]:
        width, height = self._data.get("imageWidth"), self._data.get("imageHeight")
        if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0:
            return width, height
        if path is not None:
            return displayed_size(path)
        embedded = self._data.get("imageData")
        if not embedded:
            return None, None
        try:
            with Image.open(io.BytesIO(base64.b64decode(embedded))) as image:
                return turned_size(image)
        except (*UNREADABLE, binascii.Error, TypeError):
            raise UsageError(
                f"{self.file}: `imageData` is not a photo, and `imageWidth` is not set"
            ) from None


def _points(shape: Mapping[str, Any], where: str) -> list[Point]:
    try:
        points = [(float(x), float(y)) for x, y in shape["points"]]
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{where}: `points` is not a list of [x, y] in pixels") from None
    if not points:
        raise UsageError(f"{where}: has no points; remove it")
    return points


def _box(kind: str, points: list[Point], where: str) -> list[float]:
    if kind in _NO_AREA or len(points) < 2:
        raise UsageError(
            f"{where}: is a {kind}, which is not a box and has no area; draw a box there, or remove it"
        )
    if kind == "circle":
        (centre, edge) = points[:2]
        radius = math.dist(centre, edge)
        return around_ellipse(centre, (radius, radius))
    x1, y1, x2, y2 = around(points)
    # The corners of a mask are its first and last pixels.
    return [x1, y1, x2 + 1, y2 + 1] if kind == "mask" else [x1, y1, x2, y2]
