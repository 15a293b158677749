"""What people said about photos, in whatever format they said it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from skinbatch.annotations import coco, folders, lines, masks, parts, table, voc, yolo
from skinbatch.annotations.photos import AnnotatedPhoto, Truth
from skinbatch.errors import UsageError


@dataclass(frozen=True, slots=True)
class _Format:
    fits: Callable[[Path], bool]
    read: Callable[[Path], Truth]
    looked_for: str


_ANNOTATED: Mapping[str, _Format] = {
    "voc": _Format(voc.fits, voc.read, voc.LOOKED_FOR),
    "coco": _Format(coco.fits, coco.read, coco.LOOKED_FOR),
    "yolo": _Format(yolo.fits, yolo.read, yolo.LOOKED_FOR),
    "lines": _Format(lines.fits, lines.read, lines.LOOKED_FOR),
    "masks": _Format(masks.fits, masks.read, masks.LOOKED_FOR),
    "parts": _Format(parts.fits, parts.read, parts.LOOKED_FOR),
}
_PLAIN: Mapping[str, _Format] = {
    "csv": _Format(table.fits, table.read, table.LOOKED_FOR),
    "folders": _Format(folders.fits, folders.read, folders.LOOKED_FOR),
}
"""Looked for when nothing else is there, in this order: nearly every truth has folders, and many a .csv beside it."""
_ALL = {**_ANNOTATED, **_PLAIN}
FORMATS = tuple(_ALL)


def read_truth(path: str | Path, format: str | None = None, *, group: str | None = None) -> Truth:
    """All annotated photos of a folder or file, and the photos there that nothing is said about.

    format: one of FORMATS; None: told by content. group: the column of a .csv that names patients or other groups.
    Raises UsageError naming the file, its line or field and the way out; where nothing fits, what was looked for.
    """
    path = Path(path)
    if str(path).startswith("s3:/"):
        raise UsageError(f"{path}: truth is read from this machine's files; copy it here")
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if format is not None and format not in _ALL:
        raise UsageError(f"format {format!r}: there are {', '.join(FORMATS)}")
    format = format or _told(path)
    truth = table.read(path, group) if format == "csv" else _ALL[format].read(path)
    if not any(_says(photo) for photo in truth.photos):
        raise UsageError(f"{path}: no annotations; looked for {_ALL[format].looked_for}")
    named: dict[str, Path] = {}
    for photo in truth.photos:
        if (before := named.get(photo.name)) is not None:
            twice = f"{before} and {photo.annotation}" if before != photo.annotation else f"{before}, twice"
            raise UsageError(f"{path}: {photo.name} is annotated in {twice}; keep one, or name the file that is meant")
        named[photo.name] = photo.annotation
    return dataclasses.replace(truth, photos=tuple(sorted(truth.photos, key=lambda photo: photo.name)))


def _says(photo: AnnotatedPhoto) -> bool:
    """Anything was said about the photo, if only in a file that lost its photo."""
    said = (photo.boxes, photo.classes, photo.masks, photo.severity)
    return photo.annotation != photo.path or any(value is not None for value in said)


def _told(path: Path) -> str:
    """The format that fits; of files its kind says it."""
    fitting = [name for name, form in _ANNOTATED.items() if form.fits(path)]
    if len(fitting) > 1:
        several = " and ".join(_ALL[name].looked_for for name in fitting)
        raise UsageError(f"{path}: there are {several}; say which is meant: format = {' or '.join(map(repr, fitting))}")
    fitting = fitting or [name for name, form in _PLAIN.items() if form.fits(path)]
    if not fitting:
        raise UsageError(f"{path}: no annotations; looked for {'; '.join(f.looked_for for f in _ALL.values())}")
    return fitting[0]
