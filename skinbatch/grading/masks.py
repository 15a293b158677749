"""Encode label maps as COCO run lengths."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco


def mask_rle(label_map: NDArray[np.uint8], classes: Sequence[str], width: int, height: int) -> dict[str, bytes]:
    """Return the compressed run lengths (`counts`) of every class at displayed size, by nearest
    label.

    label_map: (h, w) uint8, indices into `classes`, covering exactly the photo of width x height
    pixels.
    """
    full = cv2.resize(label_map, (width, height), interpolation=cv2.INTER_NEAREST)
    return {
        name: bytes(coco.encode(np.asfortranarray(full == n, np.uint8))["counts"]) for n, name in enumerate(classes)
    }
