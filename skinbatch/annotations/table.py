"""Read a CSV of photo and label, with a row for each photo or for each label.

A cell may have several labels with `;` between them, or there is a column of 0 and 1 for each
class. With columns for the corners of a box, a row is a box, as in TensorFlow's CSV.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from skinbatch.annotations.annotated_photos import AnnotatedPhoto, Truth
from skinbatch.annotations.displayed import displayed_size
from skinbatch.annotations.severity import severity_of
from skinbatch.annotations.tree import Tree, read_text
from skinbatch.errors import UsageError
from skinbatch.tables.names import composed

IMAGE = (
    "image",
    "image_id",
    "image_name",
    "filename",
    "file_name",
    "file",
    "path",
    "photo",
    "name",
)
LABEL = ("label", "labels", "class", "classes", "category", "diagnosis", "dx")
GROUP = ("group", "patient", "patient_id", "subject", "lesion_id")
CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"))
SIZE = ("width", "height")
LOOKED_FOR = f".csv with a column for the photo ({', '.join(IMAGE[:4])} ...) and one for the label"
_SEPARATOR = ";"


@dataclass(slots=True)
class _Row:
    """Hold all rows of one photo. line: of its first row."""

    line: int
    labels: dict[str, None] = field(default_factory=dict)
    group: str | None = None
    boxes: list[list[float]] = field(default_factory=list)
    box_labels: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None


def has_column(path: Path, name: str) -> bool:
    """Return whether a path is one .csv with photos and a column of this name."""
    files = _files(path) if path.exists() else []
    return len(files) == 1 and place_of(rows_of(files[0])[0], (name,)) is not None


def fits(path: Path) -> bool:
    """Return whether a path is a .csv with columns for photos and labels, or of 0 and 1."""
    return len(_files(path)) == 1


def read(path: Path, photos: Path | None = None, group: str | None = None) -> Truth:
    """Return the photos of a .csv.

    They are named relative to it, to `images` beside it, or by the end of a path that only one
    photo has. An empty label means "none of the classes".

    Args:
        photos: the folder of the photos, if they are not beside the .csv.
        group: column of the patient or other group. None: one of the usual names, if it exists.

    Raises:
        UsageError: naming file, line and column.
    """
    files = _files(path) if path.is_dir() else [path]
    if len(files) != 1:
        there = ", ".join(file.name for file in files) or "none"
        raise UsageError(
            f"{path}: looked for one .csv of photo and label, found {there}; name one of them"
        )
    (file,) = files
    header, rows = rows_of(file)
    image, labels, group_at = _columns(file, header, rows, group)
    boxes = _BoxColumns.of(file, header, labels)
    by_name: dict[str, _Row] = {}
    for line, row in rows:
        name = row[image].strip()
        if not name:
            raise UsageError(f"{file}: line {line}: `{header[image]}` is empty; name the photo")
        mine = by_name.setdefault(name, _Row(line))
        if boxes is not None:
            boxes.take(mine, row, f"{file}: line {line}")
        for label in _labels(row, labels):
            mine.labels[label] = None
        if group_at is not None:
            group_name = row[group_at].strip() or None
            if mine.group not in (None, group_name):
                raise UsageError(
                    f"{file}: line {line}: {name} has group {group_name!r}, but {mine.group!r} in line {mine.line}; a photo "
                    "has one group"
                )
            mine.group = group_name
    if boxes is not None:
        _check_pixels(file, by_name.values())
    return _truth(file, by_name, photos, boxed=boxes is not None)


@dataclass(frozen=True, slots=True)
class _BoxColumns:
    """Read the corners of a box, its class and the size of its photo from a row."""

    corners: tuple[int, ...]
    label: int
    size: tuple[int, ...] | None

    @classmethod
    def of(
        cls, file: Path, header: Sequence[str], labels: int | Mapping[int, str]
    ) -> _BoxColumns | None:
        """Return the columns; None if the rows are no boxes."""
        for names in CORNERS:
            places = [place_of(header, (name,)) for name in names]
            corners = tuple(place for place in places if place is not None)
            if len(corners) == len(names):
                if not isinstance(labels, int):
                    raise UsageError(
                        f"{file}: has boxes, but no column for their label ({', '.join(LABEL)})"
                    )
                sides = tuple(
                    place for name in SIZE if (place := place_of(header, (name,))) is not None
                )
                return cls(corners, labels, sides if len(sides) == len(SIZE) else None)
        return None

    def take(self, photo: _Row, row: Sequence[str], where: str) -> None:
        """Add a row's box. A row without corners means that its photo has none."""
        texts = [row[place].strip() for place in self.corners]
        try:
            if any(texts):
                photo.boxes.append([float(text) for text in texts])
                photo.box_labels.append(row[self.label].strip())
            if self.size is not None and any(row[place].strip() for place in self.size):
                width, height = (int(float(row[place])) for place in self.size)
                photo.size = width, height
        except (ValueError, OverflowError):
            raise UsageError(
                f"{where}: {', '.join(texts)} are not corners in pixels, or its size is not a number"
            ) from None


def _check_pixels(file: Path, rows: Iterable[_Row]) -> None:
    values = [abs(value) for row in rows for box in row.boxes for value in box]
    if values and max(values) <= 1:
        raise UsageError(
            f"{file}: all corners are between 0 and 1, so they are fractions and not pixels; multiply them by the photos' sizes"
        )


def _truth(file: Path, rows: Mapping[str, _Row], photo_root: Path | None, boxed: bool) -> Truth:
    tree = Tree(photo_root or file.parent, loose=photo_root is not None)
    photos, taken = [], set()
    for name, row in rows.items():
        key = tree.find(name)
        taken.add(key)
        path = (
            tree.path(key)
            if key
            else Path(name)
            if os.path.isabs(name) and os.path.isfile(name)
            else None
        )
        size = row.size or (displayed_size(path) if boxed and path else None)
        photos.append(
            AnnotatedPhoto(
                key or name,
                file,
                path,
                size[0] if size else None,
                size[1] if size else None,
                boxes=np.array(row.boxes, np.float32).reshape(-1, 4) if boxed else None,
                labels=tuple(row.box_labels) if boxed else None,
                classes=None if boxed else tuple(row.labels),
                severity=severity_of(name),
                group=row.group,
                written=name,
            )
        )
    folders = {posixpath.dirname(key) for key in taken if key}
    # A photo of another list: its name means nothing here.
    for key in tree.photos:
        if key not in taken and posixpath.dirname(key) in folders:
            photos.append(AnnotatedPhoto(key, tree.path(key), tree.path(key)))
    names = sorted({label for row in rows.values() for label in row.labels})
    return Truth(tree.root, "csv", tuple(photos), tuple(names))


def rows_of(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and line and cells of every row that is not empty."""
    text = read_text(file)
    first = text.partition("\n")[0]
    delimiter = max(",\t;", key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = [cell.strip() for cell in next(reader, [])]
        rows = []
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise UsageError(
                    f"{file}: line {reader.line_num}: {len(row)} cells under {len(header)} columns"
                )
            rows.append((reader.line_num, row))
    except csv.Error as e:
        raise UsageError(f"{file}: line {reader.line_num}: not readable as CSV: {e}") from None
    return header, rows


def _columns(
    file: Path, header: Sequence[str], rows: Sequence[tuple[int, list[str]]], group: str | None
) -> tuple[int, int | dict[int, str], int | None]:
    """Return the places of photo, label (or place -> class of columns of 0 and 1) and group."""
    image, label = place_of(header, IMAGE), place_of(header, LABEL)
    if image is None:
        raise UsageError(
            f"{file}: no column for the photo ({', '.join(IMAGE)}); its columns are {', '.join(header)}"
        )
    group_at = place_of(header, GROUP if group is None else (group,))
    if group is not None and group_at is None:
        raise UsageError(
            f"{file}: no column `{group}` for the group; its columns are {', '.join(header)}"
        )
    if label is not None:
        return image, label, group_at
    marks = {n: name for n, name in enumerate(header) if n not in (image, group_at)}
    if (
        not marks
        or not rows
        or not all(row[n].strip() in ("0", "1") for _, row in rows for n in marks)
    ):
        raise UsageError(
            f"{file}: no column for the label ({', '.join(LABEL)}), nor a column of 0 and 1 for each class; "
            f"its columns are {', '.join(header)}"
        )
    return image, marks, group_at


def _labels(row: Sequence[str], labels: int | Mapping[int, str]) -> list[str]:
    if isinstance(labels, int):
        return [part for label in row[labels].split(_SEPARATOR) if (part := label.strip())]
    return [name for n, name in labels.items() if row[n].strip() == "1"]


def place_of(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Return the place of the first of these columns that exists, in any case; None for none."""
    columns = [composed(name).lower() for name in header]
    spelled = [composed(name).lower() for name in names]
    return next((columns.index(name) for name in spelled if name in columns), None)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() in (".csv", ".tsv") else []
    return sorted(
        p
        for p in path.iterdir()
        if p.is_file() and p.suffix.lower() in (".csv", ".tsv") and _has_image(p)
    )


def _has_image(file: Path) -> bool:
    header, _ = rows_of(file)
    return place_of(header, IMAGE) is not None
