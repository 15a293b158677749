"""Read photos in one folder for each class: a photo's first folder names its class."""

from __future__ import annotations

from pathlib import Path

from skinbatch.annotations.annotated_photos import AnnotatedPhoto, Truth
from skinbatch.annotations.severity import severity_of
from skinbatch.annotations.tree import Tree
from skinbatch.errors import UsageError

LOOKED_FOR = "photos in a folder for each class"
_SPLITS = {"train", "training", "valid", "val", "validation", "test"}


def fits(path: Path) -> bool:
    """Return whether there are photos in folders, or photos named by severity (`levle2_31.jpg`)."""
    return path.is_dir() and any(
        "/" in key or severity_of(key) is not None for key in Tree(path).photos
    )


def read(path: Path) -> Truth:
    """Return every photo below `path`; one outside the folders has no class.

    Raises UsageError if the folders are splits.
    """
    tree = Tree(path)
    photos = []
    classes: dict[str, None] = {}
    for key in tree.photos:
        folder, slash, _ = key.partition("/")
        if slash:
            classes[folder] = None
        file = tree.path(key)
        photos.append(
            AnnotatedPhoto(
                key, file, file, classes=(folder,) if slash else None, severity=severity_of(key)
            )
        )
    if classes and {name.lower() for name in classes} <= _SPLITS:
        first = sorted(classes)[0]
        raise UsageError(
            f"{path}: its folders are splits, not classes ({', '.join(sorted(classes))}); name one: {path / first}"
        )
    unread = tuple(tree.path(key) for key in tree.files if key not in tree.photo_keys)
    return Truth(path, "folders", tuple(photos), tuple(sorted(classes)), unread)
