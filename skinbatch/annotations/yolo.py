"""YOLO: a .txt a photo, `class x y width height` in shares of it; beside the photo, or in `labels` beside `images`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from skinbatch.annotations.coco import EXACT
from skinbatch.annotations.displayed import displayed_size
from skinbatch.annotations.photos import OUTLINES, AnnotatedPhoto, Truth
from skinbatch.annotations.severity import severity_of
from skinbatch.annotations.tree import Tree, photo_folder, read_text, stem
from skinbatch.errors import UsageError

LOOKED_FOR = "YOLO .txt files beside their photos (or in `labels` beside `images`)"
SIZES = "photos.csv"
"""What `skinbatch export` writes beside `labels`: the photo of every label file and its size, which YOLO leaves to the photos."""
SIZE_COLUMNS = ("label", "image", "width", "height")
NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
_FOLDERS = (("labels",), ("images",))
_SWAPS = (("labels", ("images", "Images")),)
_HALF = Decimal("0.5")
_LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class _Stated:
    """A line of photos.csv."""

    name: str
    width: int | None
    height: int | None


def fits(path: Path) -> bool:
    """A .txt of numbers that belongs to a photo is there, or a folder `labels` of such files."""
    if path.is_file():
        return path.suffix.lower() in (".yaml", ".yml")
    photo_root, label_root = photo_folder(path, *_FOLDERS)
    photos = Tree(photo_root) if photo_root.is_dir() else None
    labels = Tree(label_root)
    keys = labels.ending(".txt")
    if photo_root == label_root:
        keys = [key for key in keys if photos and photos.beside(key, _SWAPS)]
    return any(_looks_right(labels.path(key)) for key in keys[:_LOOKED_AT])


def read(path: Path) -> Truth:
    """Every .txt of a photo below `path` (a folder, or its data.yaml), and every photo that has none.

    Polygons become the boxes around them. A class without a name keeps its number. Raises UsageError naming file and line.
    """
    folder = path.parent if path.is_file() else path
    photo_root, label_root = photo_folder(folder, *_FOLDERS)
    names = _class_names(path, label_root)
    stated = _stated_sizes(label_root.parent / SIZES) if photo_root != label_root else {}
    photos = Tree(photo_root) if photo_root.is_dir() else None
    labels = Tree(label_root)
    found, unread, taken = [], [], set()
    for key in labels.ending(".txt"):
        file = labels.path(key)
        photo = photos.beside(key, _SWAPS) if photos else None
        is_label = photo is not None or key in stated or photo_root != label_root or _in_labels(key, file)
        if not is_label or file.name in NAME_FILES:
            unread.append(file)
            continue
        taken.add(photo)
        found.append(_photo(file, key, photo_root / photo if photo else None, photo, stated.get(key), names))
    for key in photos.photos if photos else ():
        if key not in taken:
            found.append(AnnotatedPhoto(key, photo_root / key, photo_root / key, severity=severity_of(key)))
    used = {label for photo in found for label in photo.labels or ()}
    classes = tuple(names.values()) if names else tuple(sorted(used, key=lambda n: (len(n), n)))
    return Truth(photo_root, "yolo", tuple(found), classes, tuple(unread))


def _photo(
    file: Path, key: str, path: Path | None, photo: str | None, stated: _Stated | None, names: Mapping[int, str]
) -> AnnotatedPhoto:
    name = stated.name if stated else photo or stem(key)
    width, height = displayed_size(path) if path else (stated.width, stated.height) if stated else (None, None)
    shares, classes, outlines = _read_lines(file)
    boxes: NDArray[np.float32] | None = np.zeros((0, 4), np.float32)
    if shares and (width is None or height is None):
        boxes = None  # nobody says what the shares are of
    elif shares:
        scale = (Decimal(width or 0), Decimal(height or 0)) * 2
        pixels = [[float(EXACT.multiply(v, s)) for v, s in zip(share, scale, strict=True)] for share in shares]
        boxes = np.array(pixels, np.float32)
    labels = None if boxes is None else tuple(names.get(n, str(n)) for n in classes)
    said = {OUTLINES: outlines} if outlines else {}
    return AnnotatedPhoto(name, file, path, width, height, boxes, labels, severity=severity_of(name), not_kept=said)


def _read_lines(file: Path) -> tuple[list[tuple[Decimal, ...]], list[int], int]:
    """Corners x1 y1 x2 y2 in shares of the photo, the numbers of the classes, and how many were outlines."""
    corners, classes, outlines = [], [], 0
    for number, line in enumerate(read_text(file).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            category = int(words[0])
            values = [Decimal(word) for word in words[1:]]
            corners.append(_corners(values))
        except (ValueError, ArithmeticError):
            raise UsageError(
                f"{file}: line {number}: not `class x y width height` in numbers, nor a polygon: {line[:60]!r}"
            ) from None
        classes.append(category)
        outlines += len(values) > 4
    return corners, classes, outlines


def _corners(values: list[Decimal]) -> tuple[Decimal, ...]:
    """Decimal, so that corners come back as exactly as they were written."""
    if len(values) == 4:
        x, y, w, h = values
        half_w, half_h = EXACT.multiply(w, _HALF), EXACT.multiply(h, _HALF)
        return (EXACT.subtract(x, half_w), EXACT.subtract(y, half_h), EXACT.add(x, half_w), EXACT.add(y, half_h))
    if len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[::2], values[1::2]
        return (min(xs), min(ys), max(xs), max(ys))
    raise ValueError(f"{len(values)} numbers")


def _in_labels(key: str, file: Path) -> bool:
    """A file in a folder `labels` whose photo is missing; elsewhere a .txt without a photo is a readme."""
    return "labels" in key.lower().split("/")[:-1] and _looks_right(file)


def _looks_right(file: Path) -> bool:
    """The first line that is not empty is of numbers; an empty file says that its photo has no boxes."""
    try:
        with open(file, encoding="utf-8-sig", errors="replace") as stream:
            words = next((line.split() for line in stream if line.strip()), [])
        return not words or (len(words) > 1 and all(Decimal(word) is not None for word in words))
    except ArithmeticError:
        return False
    except OSError as e:
        raise UsageError(f"{file}: cannot be read: {e.strerror}") from None


def _class_names(path: Path, label_root: Path) -> dict[int, str]:
    """Number -> name, of the nearest file that says; {} where none does. Roboflow's data.yaml is above the splits."""
    folder = path.parent if path.is_file() else path
    places = [path] if path.is_file() else []
    for above in dict.fromkeys((label_root, folder, *label_root.parents[:2], folder.parent)):
        places += [above / name for name in NAME_FILES]
    for file in places:
        if file.is_file():
            names = _yaml_names(file) if file.suffix in (".yaml", ".yml") else _listed_names(file)
            if names:
                return names
    return {}


def _listed_names(file: Path) -> dict[int, str]:
    return dict(enumerate(line.strip() for line in read_text(file).rstrip().splitlines()))


def _yaml_names(file: Path) -> dict[int, str]:
    try:
        data: Any = yaml.safe_load(read_text(file))
        names = data.get("names") if isinstance(data, dict) else None
        if names is None:
            return {}
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name).strip() for number, name in pairs}
    except (yaml.YAMLError, TypeError, ValueError) as e:
        raise UsageError(f"{file}: `names` is no list of class names: {e}") from None


def _stated_sizes(file: Path) -> dict[str, _Stated]:
    """Label file (relative to `labels`) -> its photo; {} where there is no such file, or it is somebody else's."""
    if not file.is_file():
        return {}
    # Names of files need not be UTF-8, and may have any kind of line end in them.
    with open(file, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = list(csv.reader(stream))
    if not rows or tuple(rows[0]) != SIZE_COLUMNS:
        return {}
    try:
        return {
            label: _Stated(image, int(width) if width else None, int(height) if height else None)
            for label, image, width, height in rows[1:]
        }
    except ValueError as e:
        raise UsageError(f"{file}: not {', '.join(SIZE_COLUMNS)} in every line: {e}") from None
