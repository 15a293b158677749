"""Read annotated photos as training uses them: decoded as the scorer does, at network scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from skinbatch.models.detectors.mmdet.detector import at_network_scale, network_scale
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.train.detection.crops import Boxes, Labels, Pixels, Sample
from skinbatch.train.photos.faces import decode_skin
from skinbatch.train.photos.photo_store import StoredPhoto, decoded

# Pixels at network scale. Narrower or lower boxes are slips of the hand.
SMALLEST = 3.0
NO_BOXES: Boxes = np.zeros((0, 4), np.float32)
NO_LABELS: Labels = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class BoxedPhoto:
    """Hold a photo and its boxes.

    Attributes:
        width, height: pixels of the photo that `stored` reads.
        boxes: (N, 4) float32, in these pixels, x1 y1 x2 y2.
        labels: (N,) int64, of the model's classes.
        severity: 0-3, if known.
        group: the same for photos that belong together, such as a patient's.
        crowds, crowd_labels: likewise, regions that are marked as a crowd (COCO). Boxes found in
            them are neither right nor wrong. The label is -1 for a class that the model does not
            have.
        source: name of the truth or folder.
        repeat: how often the photo is shown in an epoch.
        skin: its skin as a small PNG, if [clone] needs it.
    """

    stored: StoredPhoto
    width: int
    height: int
    boxes: Boxes
    labels: Labels
    severity: int | None = None
    group: str | None = None
    crowds: Boxes = field(default_factory=NO_BOXES.copy)
    crowd_labels: Labels = field(default_factory=NO_LABELS.copy)
    source: str = ""
    repeat: int = 1
    skin: bytes | None = None


def network_boxes(photo: BoxedPhoto, scale_x: float, scale_y: float) -> tuple[Boxes, Labels]:
    """Return the boxes that are large enough to be meant, clipped and at network scale."""
    edge = np.array([photo.width, photo.height] * 2, np.float32)
    boxes = np.clip(photo.boxes, 0, edge) * np.array([scale_x, scale_y] * 2, np.float32)
    usable = (boxes[:, 2:] - boxes[:, :2] >= SMALLEST).all(1)
    return boxes[usable], photo.labels[usable]


def large_enough(photo: BoxedPhoto, spec: DetectorSpec) -> BoxedPhoto:
    """Return the photo with only the boxes that the network is shown."""
    scale = network_scale(photo.width, photo.height, spec)
    taught = ((photo.boxes[:, 2:] - photo.boxes[:, :2]) * np.float32(scale) >= SMALLEST).all(1)
    return replace(photo, boxes=photo.boxes[taught], labels=photo.labels[taught])


def network_sizes(photos: Sequence[BoxedPhoto], spec: DetectorSpec) -> NDArray[np.float32]:
    """Return (N, 2) widths and heights of all usable boxes, pixels of the network's input."""
    scales = [network_scale(photo.width, photo.height, spec) for photo in photos]
    boxes = [
        network_boxes(photo, scale, scale)[0] for photo, scale in zip(photos, scales, strict=True)
    ]
    together = np.concatenate([NO_BOXES, *boxes])
    return np.asarray(together[:, 2:] - together[:, :2], np.float32)


class ScaledPhotos:
    """Give access to photos at network scale by index.

    A photo is decoded each time, unless `fill` keeps it.
    """

    def __init__(self, photos: Sequence[BoxedPhoto], spec: DetectorSpec) -> None:
        self._photos, self.spec = tuple(photos), spec
        self._kept: list[Sample] = []

    def fill(self, memory: int) -> int:
        """Decode photos into `memory` bytes, and return the bytes left.

        Processes that are forked later share them. Raises UsageError naming a photo that does not
        decode.
        """
        stored = [photo.stored for photo in self._photos]
        for sample in decoded(stored, lambda n, pixels: self._scaled(self._photos[n], pixels)):
            if sample.pixels.nbytes > memory:
                break
            memory -= sample.pixels.nbytes
            self._kept.append(sample)
        return memory

    def __len__(self) -> int:
        return len(self._photos)

    @property
    def photos(self) -> tuple[BoxedPhoto, ...]:
        return self._photos

    def __getitem__(self, index: int) -> Sample:
        if index < len(self._kept):
            return self._kept[index]
        photo = self._photos[index]
        return self._scaled(photo, photo.stored.pixels())

    def _scaled(self, photo: BoxedPhoto, pixels: Pixels) -> Sample:
        small, (x, y) = at_network_scale(pixels, self.spec)
        boxes, labels = network_boxes(photo, x, y)
        return Sample(np.ascontiguousarray(small), boxes, labels, decode_skin(photo.skin))
