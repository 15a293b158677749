"""Read COCO's instances: one .json for many photos.

Roboflow calls the file `_annotations.coco.json` and puts it beside the photos.
"""

from __future__ import annotations

import decimal
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skinbatch.annotations.annotated_photos import OUTLINES, AnnotatedPhoto, Truth
from skinbatch.annotations.displayed import displayed_size
from skinbatch.annotations.json_file import json_kind
from skinbatch.annotations.photo_files import PhotoFiles, unlisted
from skinbatch.annotations.severity import severity_of
from skinbatch.annotations.tree import Tree
from skinbatch.errors import UsageError

ROBOFLOW = "_annotations.coco.json"
# The supercategory of categories that have none, as Roboflow writes it.
NO_PARENT = "none"
LOOKED_FOR = f"COCO .json (Roboflow: {ROBOFLOW})"
# Keeps sums exact: x + width is the very right edge that was exported.
EXACT = decimal.Context(prec=120, Emin=-9999, Emax=9999)


def fits(path: Path) -> bool:
    """Return whether a path is such a .json, or a folder with one."""
    return bool(_files(path))


def read(path: Path, photos: Path | None = None) -> Truth:
    """Read every COCO file of `path`.

    Regions marked as a crowd are kept apart from the boxes; outlines are only counted.

    photos: the folder of the photos. Without it they are looked for beside the file, in `images`
    there or one folder up, and in a folder of the file's name. Raises UsageError naming the file,
    the annotation's id and the field.
    """
    files = [_CocoFile(file, photos) for file in _files(path)]
    roots = {file.root for file in files}
    root = roots.pop() if len(roots) == 1 else path
    annotated = [photo for file in files for photo in file.photos(root)]
    annotated += unlisted([file.photo_files for file in files], root)
    names = dict.fromkeys(name for file in files for name in file.names())
    return Truth(root, "coco", tuple(annotated), tuple(names))


class _CocoFile:
    """Read one .json.

    Boxes go into arrays while it is parsed: two million of them as dictionaries would take 2 GB.
    """

    def __init__(self, file: Path, photos: Path | None) -> None:
        self.file = file
        self._of: list[int | str] = []
        self._category: list[int | str | None] = []
        self._corners = array("d")
        self._is_crowd = bytearray()
        self._outlines: Counter[int | str] = Counter()
        try:
            data = json.loads(file.read_bytes(), object_hook=self._take, parse_float=Decimal)
            self.images: list[dict[str, Any]] = list(data["images"])
            categories = data.get("categories") or []
            for image in self.images:
                self._id(image, "id", "image")
            for category in categories:
                self._id(category, "id", "category")
            self.categories: dict[int | str, str] = {
                c["id"]: str(c["name"]).strip() for c in categories
            }
            self._parents = {c.get("supercategory") for c in categories} - {NO_PARENT}
            rest = [a for a in data["annotations"] if a is not None]
            known = {image["id"] for image in self.images}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            reason = f"`{e.args[0]}` is missing" if isinstance(e, KeyError) else str(e)
            raise UsageError(
                f"{file}: not COCO's instances (images, annotations with bbox): {reason}"
            ) from None
        if rest:
            lacks = "bbox" if isinstance(rest[0], dict) and "image_id" in rest[0] else "image_id"
            what = (
                f"annotation {rest[0].get('id')}" if isinstance(rest[0], dict) else "an annotation"
            )
            raise UsageError(
                f"{file}: not COCO's instances: {what} has no `{lacks}`; give it one or remove it"
            )
        if len(known) < len(self.images):
            raise UsageError(f"{file}: two images have the same `id`; give each one of its own")
        stray = next((n for n in self._of if n not in known), None)
        if stray is not None:
            raise UsageError(
                f"{file}: an annotation has image_id {json.dumps(stray)}, which none of its images has; remove it"
            )
        split = file.stem.removeprefix("instances_")
        names = [[str(image.get("file_name", ""))] for image in self.images]
        self.photo_files = PhotoFiles(file, photos, names, (split, f"images/{split}"))
        self.root = self.photo_files.root

    def names(self) -> Iterator[str]:
        """Yield the names of the categories by id.

        Roboflow's first category only names the data set and has no boxes.
        """
        used = set(self._category)
        for number in sorted(self.categories, key=lambda n: (not isinstance(n, int), n)):
            if number in used or self.categories[number] not in self._parents:
                yield self.categories[number]

    def photos(self, root: Path) -> Iterator[AnnotatedPhoto]:
        """Yield the photos of `images`. root: names are relative to it."""
        order = {image["id"]: n for n, image in enumerate(self.images)}
        of = np.fromiter((order[n] for n in self._of), np.int64, len(self._of))
        boxes = np.array(self._corners, np.float64).reshape(-1, 4).astype(np.float32)
        is_crowd = np.frombuffer(self._is_crowd, np.bool_)
        sort = np.argsort(of, kind="stable")
        starts = np.searchsorted(of[sort], np.arange(len(self.images) + 1))
        for n, image in enumerate(self.images):
            all_mine = sort[starts[n] : starts[n + 1]]
            mine, crowds = all_mine[~is_crowd[all_mine]], all_mine[is_crowd[all_mine]]
            stated = str(image.get("file_name", image["id"]))
            path = self.photo_files.find([stated])
            name = self.photo_files.key(stated, path, root)
            outlines = self._outlines[image["id"]]
            yield AnnotatedPhoto(
                name,
                self.file,
                path,
                *self._size(image, path),
                boxes[mine],
                self._labels(mine),
                severity=severity_of(name),
                crowd_boxes=boxes[crowds] if len(crowds) else None,
                crowd_labels=self._labels(crowds),
                not_kept={OUTLINES: outlines} if outlines else {},
            )

    def _labels(self, annotations: NDArray[np.int64]) -> tuple[str, ...]:
        """Return the labels of annotations. A category that is not listed keeps its number."""
        of = (self._category[n] for n in annotations)
        return tuple(
            "" if category is None else self.categories.get(category, str(category))
            for category in of
        )

    def _take(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        if "bbox" not in entry or "image_id" not in entry:
            return entry
        image = self._id(entry, "image_id", "annotation")
        self._of.append(image)
        self._category.append(
            self._id(entry, "category_id", "annotation") if "category_id" in entry else None
        )
        try:
            x, y, w, h = (Decimal(v) for v in entry["bbox"])
            corners = [float(v) for v in (x, y, EXACT.add(x, w), EXACT.add(y, h))]
        except (TypeError, ValueError, ArithmeticError):
            text = json.dumps(entry["bbox"], default=str)[:60]
            raise UsageError(
                f"{self.file}: annotation {entry.get('id')}: `bbox` is {text}, not x, y, width and height in pixels"
            ) from None
        self._corners.extend(corners)
        self._is_crowd.append(bool(entry.get("iscrowd")))
        if entry.get("segmentation"):
            self._outlines[image] += 1
        return None

    def _id(self, entry: Mapping[str, Any], field: str, what: str) -> int | str:
        """Return the value of `field` in an entry. what: kind of entry, for the message."""
        value: Any = entry[field]
        if isinstance(value, int | str) and not isinstance(value, bool):
            return value
        name = entry.get("file_name", entry.get("name")) if field == "id" else entry.get("id")
        text = json.dumps(value, default=float)[:60]
        raise UsageError(
            f"{self.file}: {what} {name}: `{field}` is {text}, not a whole number or a text; correct it, or remove the {what}"
        )

    def _size(self, image: Mapping[str, Any], path: Path | None) -> tuple[int | None, int | None]:
        try:
            width, height = int(image.get("width") or 0), int(image.get("height") or 0)
        except (TypeError, ValueError, ArithmeticError):
            raise UsageError(
                f"{self.file}: image {image['id']}: `width` and `height` are not numbers of pixels"
            ) from None
        if min(width, height) > 0:
            return width, height
        return displayed_size(path) if path is not None else (None, None)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return (
            [path] if path.suffix.lower() == ".json" and json_kind(path) in ("coco", None) else []
        )
    tree = Tree(path)
    files = [tree.path(key) for key in tree.ending(".json")]
    return [file for file in files if file.name.lower() == ROBOFLOW or json_kind(file) == "coco"]
