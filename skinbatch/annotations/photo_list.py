"""Read the list of the photos that a model was trained on, for `evaluate --trained-on`."""

from __future__ import annotations

from pathlib import Path

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.annotations.lines import name_and_rest
from skinbatch.annotations.read import read_truth
from skinbatch.annotations.table import GROUP, IMAGE, place_of, rows_of
from skinbatch.annotations.tree import Tree, read_text
from skinbatch.errors import UsageError
from skinbatch.storage.local import path_of
from skinbatch.storage.locate import is_s3

# Columns with the place of a photo; `train.csv` of a training has `uri` beside `name`.
_PLACE = ("uri", *IMAGE)


def read_photo_list(path: Path, group: str | None = None) -> tuple[AnnotatedPhoto, ...]:
    """Return the photos of a list, by name, file and group, without their annotations.

    Args:
        path: the `train.csv` of a training, another CSV with a column for the photo, a text file
            with a photo on each line, a folder of photos, or any truth.
        group: the CSV's column of the person; None: one of the usual names, if it exists.

    Raises:
        UsageError: the list cannot be read, has no photo, or lacks the column.

    Example:
        >>> read_photo_list(Path("trained/work/detector/train.csv"))[0].group  # doctest: +SKIP
        'p12'
    """
    if not path.exists():
        raise UsageError(f"--trained-on {path}: no such file or folder")

    ending = path.suffix.lower()
    if path.is_dir():
        tree = Tree(path)
        photos = [AnnotatedPhoto(key, tree.path(key), tree.path(key)) for key in tree.photos]
    elif ending in (".csv", ".tsv"):
        photos = _of_table(path, group)
    elif ending in (".txt", ".lst"):
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        photos = _found(path, [(name_and_rest(line)[0], None, None) for line in lines])
    else:
        photos = list(read_truth(path, group=group).photos)

    if not photos:
        raise UsageError(f"--trained-on {path}: has no photos")
    return tuple(photos)


def _of_table(path: Path, group: str | None) -> list[AnnotatedPhoto]:
    header, rows = rows_of(path)
    at = place_of(header, _PLACE)
    if at is None:
        raise UsageError(
            f"--trained-on {path}: no column for the photo ({', '.join(_PLACE)}); its columns are {', '.join(header)}"
        )
    name_at = place_of(header, ("name",))
    group_at = place_of(header, GROUP if group is None else (group,))
    if group is not None and group_at is None:
        raise UsageError(
            f"--trained-on {path}: no column `{group}` for the group; its columns are {', '.join(header)}"
        )

    listed = []
    for _, row in rows:
        name = row[name_at].strip() if name_at is not None else ""
        person = row[group_at].strip() if group_at is not None else ""
        listed.append((row[at].strip(), name or None, person or None))
    return _found(path, listed)


def _found(path: Path, listed: list[tuple[str, str | None, str | None]]) -> list[AnnotatedPhoto]:
    """Return photos by place, name and group; a place is relative to the list, or a file elsewhere."""
    tree: Tree | None = None
    photos = []
    for place, name, group in dict.fromkeys(listed):
        file = None if is_s3(place) else Path(path_of(place))
        if file is not None and not file.is_absolute():
            tree = tree or Tree(path.parent)
            key = tree.find(place)
            file = tree.path(key) if key is not None else None
        elif file is not None and not file.is_file():
            file = None
        photos.append(AnnotatedPhoto(name or place, path, file, group=group))
    return photos
