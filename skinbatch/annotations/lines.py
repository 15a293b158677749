"""Read lists with one line for each photo: its name, then `x1,y1,x2,y2,class` for every box.

Roboflow calls them "YOLO Keras TXT".
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from skinbatch.annotations.annotated_photos import AnnotatedPhoto, Truth
from skinbatch.annotations.displayed import displayed_size
from skinbatch.annotations.severity import severity_of
from skinbatch.annotations.tree import Tree, read_text
from skinbatch.archive.formats import has_image_name
from skinbatch.errors import UsageError

ROBOFLOW = "_annotations.txt"
CLASS_FILES = ("_classes.txt", "classes.txt")
LOOKED_FOR = f".txt lines `name x1,y1,x2,y2,class ...` (Roboflow: {ROBOFLOW})"


def fits(path: Path) -> bool:
    """Return whether there is a .txt whose first line is a photo's name and perhaps boxes."""
    return bool(_files(path))


def read(path: Path, photos: Path | None = None) -> Truth:
    """Read every such .txt of `path`, and the photos beside them without a line.

    Classes have the names of `_classes.txt` beside the list; without it they keep their numbers.

    photos: the folder of the photos, if they are not beside the list. Raises UsageError naming
    file, line and word.
    """
    root = path.parent if path.is_file() else path
    photo_root = photos or root
    tree = Tree(photo_root, loose=photos is not None)
    annotated: list[AnnotatedPhoto] = []
    names: dict[str, None] = {}
    folders = set()
    for file in _files(path):
        classes = _classes(file)
        names.update(dict.fromkeys(classes))
        near = "" if photos else file.parent.relative_to(root).as_posix().removeprefix(".")
        folders.add(near)
        for number, line in enumerate(read_text(file).splitlines(), 1):
            if line.strip():
                annotated.append(
                    _photo(line.strip(), f"{file}: line {number}", file, tree, near, classes)
                )
    taken = {photo.path for photo in annotated}
    for key in tree.photos:
        if key.rpartition("/")[0] in folders and tree.path(key) not in taken:
            annotated.append(
                AnnotatedPhoto(key, tree.path(key), tree.path(key), severity=severity_of(key))
            )
    used = {label for photo in annotated for label in photo.labels or ()}
    class_names = tuple(names) or tuple(sorted(used, key=lambda n: (len(n), n)))
    return Truth(photo_root, "lines", tuple(annotated), class_names)


def _photo(
    line: str, where: str, file: Path, tree: Tree, near: str, classes: list[str]
) -> AnnotatedPhoto:
    name, groups = name_and_rest(line)
    boxes, labels = [], []
    for group in groups:
        parts = group.split(",")
        try:
            x1, y1, x2, y2 = (float(part) for part in parts[:4])
            (word,) = parts[4:]
        except ValueError:
            raise UsageError(
                f"{where}: {group[:60]!r} is not x1,y1,x2,y2,class in pixels"
            ) from None
        boxes.append([x1, y1, x2, y2])
        number = int(word) if word.isdecimal() else -1
        labels.append(classes[number] if 0 <= number < len(classes) else word.strip())
    key = tree.find(name, near)
    path = (
        tree.path(key)
        if key
        else Path(name)
        if os.path.isabs(name) and os.path.isfile(name)
        else None
    )
    width, height = displayed_size(path) if path else (None, None)
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    known = key or (f"{near}/{name}" if near and not os.path.isabs(name) else name)
    return AnnotatedPhoto(
        known, file, path, width, height, corners, tuple(labels), severity=severity_of(known)
    )


def name_and_rest(line: str) -> tuple[str, list[str]]:
    """Return name and groups of a line.

    A name may have blanks: it ends with the first word that ends like a photo.
    """
    words = line.split()
    for n, word in enumerate(words, 1):
        if has_image_name(word):
            return line[: line.index(word) + len(word)] if n > 1 else word, words[n:]
    return words[0], words[1:]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".txt" else []
    tree = Tree(path)
    return [tree.path(key) for key in tree.ending(".txt") if _looks_right(tree.path(key))]


def _looks_right(file: Path) -> bool:
    try:
        with open(file, encoding="utf-8-sig", errors="replace") as stream:
            line = next((line.strip() for line in stream if line.strip()), "")
    except OSError as e:
        raise UsageError(f"{file}: cannot be read: {e.strerror}") from None
    name, groups = name_and_rest(line) if line else ("", [])
    if not has_image_name(name):
        return False
    return "," in groups[0] if groups else file.name == ROBOFLOW


def _classes(file: Path) -> list[str]:
    for name in CLASS_FILES:
        if (listed := file.with_name(name)).is_file():
            return [line.strip() for line in read_text(listed).rstrip().splitlines()]
    return []
