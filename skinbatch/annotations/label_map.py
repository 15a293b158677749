"""Read the mask of one photo as class numbers, from one file or several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.annotations.displayed import UNREADABLE
from skinbatch.annotations.masks import BODY, CLASSES, ID_MODES, UNSURE
from skinbatch.annotations.part_masks import part_of
from skinbatch.errors import UsageError


def read_mask(photo: AnnotatedPhoto) -> NDArray[np.uint8]:
    """Return the (H, W) uint8 numbers of `masks.CLASSES`, or `masks.UNSURE`, at the mask's size.

    Parts are laid over each other in the publishers' order, the later on top. Pixels that no part
    covers are background. Raises UsageError naming the file that is no such mask.
    """
    if not photo.masks:
        raise UsageError(
            f"{photo.path or photo.annotation}: has no mask; remove the photo, or draw one"
        )
    parts = [part_of(file.name) for file in photo.masks]
    if len(parts) == 1 and parts[0] is None:
        return _ids(photo.masks[0])
    mask: NDArray[np.uint8] | None = None
    for part, file in sorted(
        zip(parts, photo.masks, strict=True), key=lambda pair: pair[0] or (0, 0)
    ):
        if part is None:
            raise UsageError(
                f"{file}: is not named after a part of CelebAMask-HQ (00000_skin.png, 00000_l_eye.png ...)"
            )
        covers = _covered(file)
        if mask is None:
            mask = np.zeros(covers.shape, np.uint8)
        if covers.shape != mask.shape:
            (h, w), (height, width) = covers.shape, mask.shape
            raise UsageError(
                f"{file}: is {w} x {h} pixels, but the parts before it are {width} x {height}"
            )
        mask[covers] = part[1]
    assert mask is not None
    return mask


def mask_size(photo: AnnotatedPhoto) -> tuple[int, int]:
    """Return width and height of the mask's files, from their headers.

    Raises UsageError if they differ or are not readable.
    """
    sizes: dict[tuple[int, int], Path] = {}
    for file in photo.masks or ():
        with _opened(file) as image:
            sizes.setdefault(image.size, file)
    if len(sizes) > 1:
        raise UsageError("; ".join(f"{file} is {w} x {h}" for (w, h), file in sizes.items()))
    return next(iter(sizes))


def _ids(file: Path) -> NDArray[np.uint8]:
    with _opened(file) as image:
        if image.mode not in ID_MODES:
            raise UsageError(
                f"{file}: has colours (mode {image.mode}), not class numbers; save it with a palette, or in grey"
            )
        ids = _pixels(image, file)
    known = ids[ids != UNSURE]
    if known.max(initial=0) >= len(CLASSES):
        raise UsageError(
            f"{file}: has class {known.max()}; masks have CelebAMask-HQ's 0 to 18, {BODY} for skin of the body, and {UNSURE} "
            "for unsure pixels"
        )
    return ids


def _covered(file: Path) -> NDArray[np.bool_]:
    with _opened(file) as image:
        pixels = _pixels(image, file)
    return np.asarray((pixels if pixels.ndim == 2 else pixels[..., 0]) != 0, np.bool_)


def _opened(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except UNREADABLE as e:
        raise UsageError(f"{file}: not a readable mask: {e}; replace it, or remove it") from None


def _pixels(image: Image.Image, file: Path) -> NDArray[np.uint8]:
    try:
        return np.asarray(image, np.uint8)
    except UNREADABLE as e:
        raise UsageError(f"{file}: not a readable mask: {e}; replace it, or remove it") from None
