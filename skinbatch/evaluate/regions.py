"""Compare the masks of the tables with those that people drew."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.annotations.displayed import same_shape
from skinbatch.annotations.label_map import read_mask
from skinbatch.annotations.masks import CLASSES, UNSURE
from skinbatch.errors import UsageError
from skinbatch.evaluate.request import EvaluationRequest, Judged
from skinbatch.evaluate.scoring_tables import Masks
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.segmentation import overlaps, segmentation

Bools = NDArray[np.bool_]

BACKGROUND = "background"


class Regions:
    """Judge the photos that have both a true and a found mask.

    Masks are compared at the photo's own size. A true mask of another size is scaled to it by
    nearest pixel. A class that people drew and the segmenter does not have counts as background;
    pixels of which people were unsure are left out.

    places: (n,) indices among the judged photos. unusable: names of photos whose masks have another
    shape, cannot be read or do not exist.
    """

    def __init__(self, judged: Judged, masks: Masks, request: EvaluationRequest) -> None:
        self.classes = tuple(masks.classes)
        number = {name: k for k, name in enumerate(self.classes)}
        self._meaning = np.full(256, UNSURE, np.uint8)
        meant = {name: request.renamed_part(name) or BACKGROUND for name in CLASSES}
        self._meaning[: len(CLASSES)] = [
            number.get(meant[name], number.get(BACKGROUND, 0)) for name in CLASSES
        ]
        self.merged = tuple(name for name in CLASSES if meant[name] not in number)
        self.unusable: list[str] = []
        photos_with_masks = []
        for n, photo in enumerate(judged.photos):
            if photo.masks is None:
                continue
            pixels = self._overlaps(photo, masks.of(judged.image_ids[n]))
            if pixels is None:
                self.unusable.append(photo.name)
            else:
                photos_with_masks.append((n, pixels))
        self.places = np.array([n for n, _ in photos_with_masks], np.int64)
        self._pixels = np.array([pixels for _, pixels in photos_with_masks], np.int64).reshape(
            -1, len(self.classes), 3
        )
        self._groups = judged.groups_of(self.places)

    def measure(self, keep: Bools, how: Resampling) -> dict[str, Any]:
        """Return the numbers of some photos. keep: (n,) bool."""
        groups = None if self._groups is None else self._groups[keep]
        return {
            "photos": int(keep.sum()),
            "classes": segmentation(self._pixels[keep], self.classes, how, groups=groups),
        }

    def _overlaps(self, photo: AnnotatedPhoto, runs: Any) -> NDArray[np.int64] | None:
        if runs is None:
            return None
        (height, width), counts = runs
        try:
            truth = self._meaning[read_mask(photo)]
        except UsageError:
            return None
        if not same_shape((truth.shape[1], truth.shape[0]), (width, height)):
            return None
        if truth.shape != (height, width):
            truth = np.asarray(
                cv2.resize(truth, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8
            )
        label = np.zeros((height, width), np.uint8)
        for k, run in enumerate(counts):
            label[coco.decode({"size": [height, width], "counts": run.encode()}) > 0] = k
        known = truth != UNSURE
        return overlaps(truth[known], label[known], len(self.classes))
