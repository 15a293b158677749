"""Read CelebAMask-HQ as published: one PNG for each part, photos in `CelebA-HQ-img`.

A part is for example `CelebAMask-HQ-mask-anno/0/00000_skin.png`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

from skinbatch.annotations.annotated_photos import AnnotatedPhoto, Truth
from skinbatch.annotations.masks import CLASSES
from skinbatch.annotations.tree import Tree
from skinbatch.errors import UsageError

ANNOTATIONS, PHOTOS = "CelebAMask-HQ-mask-anno", "CelebA-HQ-img"
LOOKED_FOR = f"{ANNOTATIONS}/<n>/00000_skin.png with {PHOTOS}/0.jpg"
# Part -> class, in the order of the publishers' own script: a later part lies over an earlier one.
PARTS: Mapping[str, int] = {
    "skin": 1, "nose": 2, "eye_g": 3, "l_eye": 4, "r_eye": 5, "l_brow": 6, "r_brow": 7, "l_ear": 8, "r_ear": 9,
    "mouth": 10, "u_lip": 11, "l_lip": 12, "hair": 13, "hat": 14, "ear_r": 15, "neck_l": 16, "neck": 17, "cloth": 18,
}  # fmt: skip
_FILE = re.compile(rf"(\d+)_({'|'.join(PARTS)})\.png")


def fits(path: Path) -> bool:
    """Return whether `path` has the folder of the parts, or is it."""
    if path.is_file():
        return False
    root = _root(path)
    return (
        any(part_of(key) for key in Tree(root / ANNOTATIONS).ending(".png")[:20]) if root else False
    )


def read(path: Path) -> Truth:
    """Return every photo with the files of its parts, lowest first.

    Photos without parts and parts without a photo are included.
    """
    root = _root(path)
    if root is None:
        raise UsageError(f"{path}: has no folder {ANNOTATIONS}; name the folder that contains it")
    annotations = Tree(root / ANNOTATIONS)
    parts: dict[int, dict[int, Path]] = {}
    unread = []
    for key in annotations.files:
        part = part_of(key)
        if part is None:
            unread.append(annotations.path(key))
            continue
        number, class_id = part
        before = parts.setdefault(number, {}).setdefault(class_id, annotations.path(key))
        if before != annotations.path(key):
            raise UsageError(
                f"{annotations.path(key)}: the same part as {before}; keep one of them"
            )
    photo_root = root / PHOTOS
    photos = []
    for key in Tree(photo_root).photos if photo_root.is_dir() else ():
        mine = parts.pop(_number(key), {})
        files = tuple(mine[n] for n in sorted(mine))
        file = photo_root / key
        photos.append(AnnotatedPhoto(key, files[0] if files else file, file, masks=files or None))
    for number, mine in sorted(parts.items()):
        files = tuple(mine[n] for n in sorted(mine))
        photos.append(AnnotatedPhoto(f"{number}.jpg", files[0], masks=files))
    return Truth(photo_root, "parts", tuple(photos), CLASSES, tuple(unread))


def part_of(key: str) -> tuple[int, int] | None:
    """Return photo number and class of a part's file; None for any other file."""
    match = _FILE.fullmatch(posixpath.basename(key))
    return (int(match[1]), PARTS[match[2]]) if match else None


def _number(photo: str) -> int:
    """Return a photo's number; -1 if its name is no number."""
    name = posixpath.basename(photo).partition(".")[0]
    return int(name) if name.isdecimal() else -1


def _root(path: Path) -> Path | None:
    """Return the folder that has both; `path` may be it, or the folder of the parts or photos."""
    for root in (path, path.parent):
        if (root / ANNOTATIONS).is_dir() and (root == path or path.name in (ANNOTATIONS, PHOTOS)):
            return root
    return None
