"""Read YOLO: one .txt for each photo, with `class x y width height` in shares of it.

The files are beside the photos, or in `labels` beside `images`.
"""

from __future__ import annotations

import csv
import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skinbatch.annotations.annotated_photos import OUTLINES, AnnotatedPhoto, Truth
from skinbatch.annotations.coco import EXACT
from skinbatch.annotations.displayed import displayed_size
from skinbatch.annotations.severity import severity_of
from skinbatch.annotations.spellings import Spellings
from skinbatch.annotations.tree import Tree, photo_folder, read_text, stem
from skinbatch.annotations.yolo_data import (
    YAML,
    DataSet,
    class_names,
    data_sets_in,
    labels_of,
    read_data_set,
)
from skinbatch.errors import UsageError

LOOKED_FOR = "YOLO .txt files beside their photos (or in `labels` beside `images`)"
# File that `skinbatch export` writes beside `labels`: each label file's photo and its size, which
# YOLO leaves to the photos.
SIZES = "photos.csv"
SIZE_COLUMNS = ("label", "image", "width", "height")
NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
_FOLDERS = (("labels",), ("images",))
_SWAPS = (("labels", ("images", "Images")),)
_HALF = Decimal("0.5")
_LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class _Stated:
    """Hold a line of photos.csv."""

    name: str
    width: int | None
    height: int | None


def fits(path: Path, photos: Path | None = None) -> bool:
    """Return whether there are labels of YOLO at a path.

    They are a .txt of numbers that belongs to a photo beside it or in `photos`, a folder `labels`
    of such files, or a data.yaml.
    """
    if path.is_file():
        return path.suffix.lower() in YAML
    return _has_labels(path, photos) or any(
        _leads_to_labels(read_data_set(file)) for file in data_sets_in(path)
    )


def read(path: Path, photos: Path | None = None, split: str | None = None) -> Truth:
    """Read every .txt of a photo below `path`, and every photo without one.

    Of a data.yaml, read the photos that it names, wherever they are. Polygons become the boxes
    around them. A class without a name keeps its number.

    Args:
        photos: the folder of the photos, if they are not beside the labels.
        split: only this split of a data.yaml.

    Raises:
        UsageError: naming file and line.
    """
    data_set = _data_set(path)
    if data_set is not None:
        if photos is not None:
            raise UsageError(
                f"{data_set.file}: names its photos itself; name the folder of the labels, or leave {photos} out"
            )
        return _read_data_set(data_set, split)

    folder = path.parent if path.is_file() else path
    photo_root, label_root = photo_folder(folder, *_FOLDERS)
    names = _class_names(path, label_root)
    stated = _stated_sizes(label_root.parent / SIZES) if photo_root != label_root else {}
    place = _Folder(photos or photo_root, label_root, stated, names, loose=photos is not None)
    annotated, unread = place.photos()
    return Truth(
        place.photo_root, "yolo", tuple(annotated), _classes(annotated, names), tuple(unread)
    )


def _data_set(path: Path) -> DataSet | None:
    """Return the data.yaml that names the photos; None if the folder itself has the labels."""
    if path.is_file():
        data_set = read_data_set(path)
        return (
            data_set
            if data_set.splits and (data_set.is_there or not _has_labels(path.parent))
            else None
        )
    if _has_labels(path):
        return None
    files = data_sets_in(path)
    if len(files) > 1:
        raise UsageError(
            f"{path}: has several data sets: {', '.join(file.name for file in files)}; name one of them"
        )
    return read_data_set(files[0]) if files else None


def _read_data_set(data_set: DataSet, split: str | None) -> Truth:
    """Read the photos of a data.yaml, named relative to the folder that has all of them."""
    parts: list[tuple[Path, _Folder | list[Path]]] = []
    for place in data_set.places(split):
        if place.suffix.lower() == ".txt" and place.is_file():
            listed = _listed_photos(place, data_set.root)
            parts.append((Path(os.path.commonpath([photo.parent for photo in listed])), listed))
            continue
        photo_root, label_root = photo_folder(place, *_FOLDERS)
        stated = _stated_sizes(label_root.parent / SIZES) if photo_root != label_root else {}
        parts.append((photo_root, _Folder(photo_root, label_root, stated, data_set.names)))

    root = Path(os.path.commonpath([folder for folder, _ in parts]))
    by_path: dict[Path | str, AnnotatedPhoto] = {}
    unread: list[Path] = []
    for folder, part in parts:
        if isinstance(part, list):
            spellings = Spellings()
            photos = [_listed_photo(photo, root, data_set.names, spellings) for photo in part]
        else:
            photos, others = part.photos(folder.relative_to(root).as_posix())
            unread += others
        for photo in photos:
            # A photo may be in two lists.
            by_path.setdefault(photo.path or photo.name, photo)
    return Truth(
        root,
        "yolo",
        tuple(by_path.values()),
        _classes(by_path.values(), data_set.names),
        tuple(unread),
    )


def _listed_photos(file: Path, root: Path) -> list[Path]:
    """Return the photos of a .txt list.

    Its paths are relative to the list, to the data set or to the current folder.
    """
    spellings, photos = Spellings(), []
    for line in read_text(file).splitlines():
        written = line.strip().replace("\\", "/")
        if not written:
            continue
        places = [
            Path(os.path.normpath(above / written)) for above in (file.parent, root, Path.cwd())
        ]
        photos.append(
            next(
                (match for place in places if (match := spellings.file(place)) is not None),
                places[0],
            )
        )
    if not photos:
        raise UsageError(f"{file}: names no photo; give a path a line")
    return photos


def _listed_photo(
    photo: Path, root: Path, names: Mapping[int, str], spellings: Spellings
) -> AnnotatedPhoto:
    path = photo if photo.is_file() else None
    name = photo.relative_to(root).as_posix()
    file = spellings.file(labels_of(photo).with_suffix(".txt"))
    if file is not None:
        return _photo(file, name, path, None, names)
    return AnnotatedPhoto(name, photo, path, severity=severity_of(name))


def _classes(photos: Iterable[AnnotatedPhoto], names: Mapping[int, str]) -> tuple[str, ...]:
    used = {label for photo in photos for label in photo.labels or ()}
    return tuple(names.values()) if names else tuple(sorted(used, key=lambda n: (len(n), n)))


def _has_labels(folder: Path, photos: Path | None = None) -> bool:
    photo_root, label_root = photo_folder(folder, *_FOLDERS)
    trees = [Tree(root) for root in (photo_root, photos) if root is not None and root.is_dir()]
    labels = Tree(label_root)
    keys = labels.ending(".txt")
    if photo_root == label_root:
        keys = [key for key in keys if any(tree.beside(key, _SWAPS) for tree in trees)]
    return any(_looks_right(labels.path(key)) for key in keys[:_LOOKED_AT])


def _leads_to_labels(data_set: DataSet) -> bool:
    """Return whether any of a data.yaml's photos has labels.

    Such a file may lie beside annotations of another format.
    """
    for place in (place for places in data_set.splits.values() for place in places):
        if place.is_dir() and _has_labels(place):
            return True
        if place.is_file():
            photos = _listed_photos(place, data_set.root)[:_LOOKED_AT]
            if any(labels_of(photo).with_suffix(".txt").is_file() for photo in photos):
                return True
    return False


@dataclass(frozen=True, slots=True)
class _Folder:
    """Read a folder of photos and the one of their labels, which may be the same.

    stated: label -> its photo's line in photos.csv. loose: the folder of the photos was given.
    """

    photo_root: Path
    label_root: Path
    stated: Mapping[str, _Stated]
    names: Mapping[int, str]
    loose: bool = False

    def photos(self, within: str = "") -> tuple[list[AnnotatedPhoto], list[Path]]:
        """Return the photos, and the files beside them that are no labels.

        within: goes before their names.
        """
        photos = Tree(self.photo_root, self.loose) if self.photo_root.is_dir() else None
        labels = Tree(self.label_root)
        apart = self.photo_root != self.label_root
        annotated, unread, taken = [], [], set()
        for key in labels.ending(".txt"):
            file = labels.path(key)
            photo = photos.beside(key, _SWAPS) if photos else None
            if photo is None and photos and self.loose:
                photo = photos.find(stem(key))
            is_label = photo is not None or key in self.stated or apart or _in_labels(key, file)
            if not is_label or file.name in NAME_FILES:
                unread.append(file)
                continue
            taken.add(photo)
            path = self.photo_root / photo if photo else None
            name = _within(within, photo or stem(key))
            annotated.append(_photo(file, name, path, self.stated.get(key), self.names))
        for key in photos.photos if photos else ():
            if key not in taken:
                path = self.photo_root / key
                name = _within(within, key)
                annotated.append(AnnotatedPhoto(name, path, path, severity=severity_of(key)))
        return annotated, unread


def _within(folder: str, key: str) -> str:
    return key if folder in ("", ".") else posixpath.join(folder, key)


def _photo(
    file: Path, name: str, path: Path | None, stated: _Stated | None, names: Mapping[int, str]
) -> AnnotatedPhoto:
    """Return the photo of a label file. stated: its line in photos.csv."""
    name = stated.name if stated else name
    width, height = (
        displayed_size(path) if path else (stated.width, stated.height) if stated else (None, None)
    )
    shares, classes, outlines = _read_lines(file)
    boxes: NDArray[np.float32] | None = np.zeros((0, 4), np.float32)
    if shares and (width is None or height is None):
        boxes = None  # The shares are of an unknown size.
    elif shares:
        scale = (Decimal(width or 0), Decimal(height or 0)) * 2
        pixels = [
            [float(EXACT.multiply(v, s)) for v, s in zip(share, scale, strict=True)]
            for share in shares
        ]
        boxes = np.array(pixels, np.float32)
    labels = None if boxes is None else tuple(names.get(n, str(n)) for n in classes)
    not_kept = {OUTLINES: outlines} if outlines else {}
    return AnnotatedPhoto(
        name,
        file,
        path,
        width,
        height,
        boxes,
        labels,
        severity=severity_of(name),
        not_kept=not_kept,
    )


def _read_lines(file: Path) -> tuple[list[tuple[Decimal, ...]], list[int], int]:
    """Return corners x1 y1 x2 y2 in shares of the photo, class numbers, and outlines' number."""
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
    """Return the corners as Decimal, so that they come back as exactly as they were written."""
    if len(values) == 4:
        x, y, w, h = values
        half_w, half_h = EXACT.multiply(w, _HALF), EXACT.multiply(h, _HALF)
        return (
            EXACT.subtract(x, half_w),
            EXACT.subtract(y, half_h),
            EXACT.add(x, half_w),
            EXACT.add(y, half_h),
        )
    if len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[::2], values[1::2]
        return (min(xs), min(ys), max(xs), max(ys))
    raise ValueError(f"{len(values)} numbers")


def _in_labels(key: str, file: Path) -> bool:
    """Return whether a file in a folder `labels` is one whose photo is missing.

    Elsewhere a .txt without a photo is a readme.
    """
    return "labels" in key.lower().split("/")[:-1] and _looks_right(file)


def _looks_right(file: Path) -> bool:
    """Return whether the first line that is not empty has numbers.

    An empty file means that its photo has no boxes.
    """
    try:
        with open(file, encoding="utf-8-sig", errors="replace") as stream:
            words = next((line.split() for line in stream if line.strip()), [])
        return not words or (len(words) > 1 and all(Decimal(word) is not None for word in words))
    except ArithmeticError:
        return False
    except OSError as e:
        raise UsageError(f"{file}: cannot be read: {e.strerror}") from None


def _class_names(path: Path, label_root: Path) -> dict[int, str]:
    """Return number -> name from the nearest file that has them; {} if there is none.

    Roboflow's data.yaml is above the splits.
    """
    folder = path.parent if path.is_file() else path
    places = [path] if path.is_file() else []
    for above in dict.fromkeys((label_root, folder, *label_root.parents[:2], folder.parent)):
        places += [above / name for name in NAME_FILES]
    for file in places:
        if file.is_file():
            names = class_names(file) if file.suffix in YAML else _listed_names(file)
            if names:
                return names
    return {}


def _listed_names(file: Path) -> dict[int, str]:
    return dict(enumerate(line.strip() for line in read_text(file).rstrip().splitlines()))


def _stated_sizes(file: Path) -> dict[str, _Stated]:
    """Return label file (relative to `labels`) -> its photo.

    {} if there is no photos.csv, or if another tool wrote it.
    """
    if not file.is_file():
        return {}
    # File names need not be UTF-8, and may contain any kind of line end.
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
