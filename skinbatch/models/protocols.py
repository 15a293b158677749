"""Define the three protocols of models that the scorer uses, whatever framework runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from skinbatch.types import Detections

InputKind = Literal["image", "crop", "masked_crop"]


class Segmenter(Protocol):
    """Label the pixels of photos.

    classes: names in label order, with `background`, `skin` and `nose` among them.
    """

    classes: tuple[str, ...]

    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Return a label map for each photo.

        Args:
            photos: (H, W, 3) uint8 RGB each, of any size.

        Returns:
            (h, w) uint8 each, at the model's own resolution. A map covers exactly the photo: h / H
            and w / W are the scales, and padding is cut off.
        """

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (h, w) of the label map of a photo of this height and width."""


class Detector(Protocol):
    """Find lesions in photos. classes: names in label order."""

    classes: tuple[str, ...]
    input: InputKind

    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Return the boxes of each photo.

        Args:
            photos: (H, W, 3) uint8 RGB each.

        Returns:
            Boxes in pixels of each array, above the pack's score floor, after class-wise NMS. There
            are at most as many as the pack's box cap (`saturated` if it was reached).
        """


class Classifier(Protocol):
    """Return class probabilities of photos.

    head: name of the head, `disease` or the pack's own. classes: names in output order. threshold:
    there is no top class below this probability.
    """

    head: str
    classes: tuple[str, ...]
    input: InputKind
    threshold: float

    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return (N, C) float32 probabilities, NaN where the model gave NaN.

        photos: (H, W, 3) uint8 RGB each.
        """


@dataclass(frozen=True, slots=True)
class Models:
    """Hold the models of a pack, ready to use on one device."""

    segmenter: Segmenter
    detector: Detector
    classifiers: tuple[Classifier, ...]
