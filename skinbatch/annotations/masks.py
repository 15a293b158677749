"""Read masks in the common form of CelebAMask-HQ: one PNG of class numbers for each photo.

Masks are in `masks` beside `images`, or beside the photos.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from skinbatch.annotations.annotated_photos import AnnotatedPhoto, Truth
from skinbatch.annotations.displayed import UNREADABLE
from skinbatch.annotations.severity import severity_of
from skinbatch.annotations.tree import Tree, photo_folder, stem
from skinbatch.errors import UsageError
from skinbatch.tables.names import composed

LOOKED_FOR = "mask PNGs in `masks` beside `images`"
# The index is the number of a mask's pixel. All classes but `body` are CelebAMask-HQ's.
CLASSES = (
    "background", "skin", "nose", "eyeglasses", "left_eye", "right_eye", "left_brow", "right_brow", "left_ear",
    "right_ear", "mouth", "upper_lip", "lower_lip", "hair", "hat", "earring", "necklace", "neck", "cloth", "body",
)  # fmt: skip
SKIN, NOSE = CLASSES.index("skin"), CLASSES.index("nose")
# Skin outside the face, such as a hand's.
BODY = CLASSES.index("body")
# A pixel of unknown class. It is neither trained on nor evaluated.
UNSURE = 255
# Pillow's names for pixels that are numbers: palette and grey.
ID_MODES = ("P", "L")
_FOLDERS = (("masks",), ("images",))
_LOOKED_AT = 20


def fits(path: Path, photos: Path | None = None) -> bool:
    """Return whether there is a folder `masks` with PNGs, or PNGs of class numbers.

    The latter have the names of photos beside them or in `photos`.
    """
    if path.is_file():
        return False
    photo_root, mask_root = photo_folder(path, *_FOLDERS)
    masks = Tree(mask_root)
    if photo_root != mask_root:
        return bool(masks.ending(".png"))
    pairs = [key for key in masks.ending(".png") if _pair(key, masks)]
    if photos is not None and not pairs:
        tree = Tree(photos)
        pairs = [key for key in masks.ending(".png") if tree.beside(key)]
    return bool(pairs) and all(_is_mask(masks.path(key)) for key in pairs[:_LOOKED_AT])


def read(path: Path, photos: Path | None = None) -> Truth:
    """Return every photo with or without a mask, and every mask without a photo.

    photos: the folder of the photos, if they are not beside the masks.
    """
    photo_root, mask_root = photo_folder(path, *_FOLDERS)
    photo_root = photos or photo_root
    masks = Tree(mask_root)
    tree = Tree(photo_root) if photo_root.is_dir() else None
    if photo_root == mask_root:
        of = {photo: key for key in masks.ending(".png") if (photo := _pair(key, masks))}
        names = sorted(set(masks.photos) - set(of.values()))
        lost: list[str] = []
    else:
        by_stem = {_plain_stem(key): key for key in masks.ending(".png")}
        names = tree.photos if tree else []
        of = {name: by_stem[_plain_stem(name)] for name in names if _plain_stem(name) in by_stem}
        lost = sorted(set(by_stem) - {_plain_stem(name) for name in names})
    annotated = []
    for name in names:
        path = photo_root / name
        mine = (masks.path(of[name]),) if name in of else None
        file = mine[0] if mine else path
        annotated.append(AnnotatedPhoto(name, file, path, masks=mine, severity=severity_of(name)))
    for name in lost:
        file = masks.path(by_stem[name])
        annotated.append(AnnotatedPhoto(name, file, masks=(file,), severity=severity_of(name)))
    return Truth(photo_root, "masks", tuple(annotated), CLASSES)


def _plain_stem(key: str) -> str:
    return stem(composed(key))


def _pair(key: str, tree: Tree) -> str | None:
    """Return the photo of a mask that lies beside it: of its name, in another format."""
    return next((photo for photo in tree.all_beside(key) if photo != key), None)


def _is_mask(file: Path) -> bool:
    """Return whether a file is a mask, and not any PNG with a photo's name."""
    try:
        with Image.open(file) as image:
            numbers = np.asarray(image)
            return image.mode in ID_MODES and int(numbers[numbers != UNSURE].max(initial=0)) < len(
                CLASSES
            )
    except UNREADABLE as e:
        raise UsageError(f"{file}: not a readable PNG: {e}; replace it, or remove it") from None
