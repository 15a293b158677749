"""Encode label maps as COCO run lengths, and decode them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco


def mask_rle(
    label_map: NDArray[np.uint8], classes: Sequence[str], width: int, height: int
) -> dict[str, bytes]:
    """Return the compressed run lengths (`counts`) of every class at displayed size, by nearest
    label.

    label_map: (h, w) uint8, indices into `classes`, covering exactly the photo of width x height
    pixels.
    """
    full = cv2.resize(label_map, (width, height), interpolation=cv2.INTER_NEAREST)
    return {
        name: bytes(coco.encode(np.asfortranarray(full == n, np.uint8))["counts"])
        for n, name in enumerate(classes)
    }


def label_map_of(
    masks: Mapping[str, bytes],
    classes: Sequence[str],
    width: int,
    height: int,
    size: tuple[int, int],
) -> NDArray[np.uint8] | None:
    """Return the label map of which `mask_rle` made the masks, or None if they do not tell it.

    A map that is larger than its photo lost labels when the masks were made.

    Args:
        masks: compressed run lengths of every class, of width x height pixels.
        classes: names in label order.
        width, height: of the displayed photo, in pixels.
        size: (h, w) of the label map.

    Returns:
        (h, w) uint8, indices into `classes`. Its masks are exactly `masks`.
    """
    full = np.zeros((height, width), np.uint8)
    for n, name in enumerate(classes):
        full[coco.decode({"size": [height, width], "counts": masks[name]}).view(np.bool_)] = n

    rows, columns = _first_pixels(size[0], height), _first_pixels(size[1], width)
    if (len(rows), len(columns)) != size:
        return None
    label_map = full[np.ix_(rows, columns)]
    again = cv2.resize(label_map, (width, height), interpolation=cv2.INTER_NEAREST)
    return label_map if np.array_equal(again, full) else None


def _first_pixels(small: int, large: int) -> NDArray[np.intp]:
    """Return the first of the `large` pixels to which enlarging copies each of the `small` ones."""
    source = cv2.resize(
        np.arange(small, dtype=np.float32)[None], (large, 1), interpolation=cv2.INTER_NEAREST
    )
    return np.unique(source, return_index=True)[1]
