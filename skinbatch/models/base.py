"""Three protocols: what the scorer asks of a model, whatever framework runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from skinbatch.types import Detections

InputKind = Literal["image", "crop", "masked_crop"]


class Segmenter(Protocol):
    """classes: names in label order; `background`, `skin` and `nose` are among them."""

    classes: tuple[str, ...]

    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """photos: (H, W, 3) uint8 RGB each, any sizes. Returns a (h, w) uint8 label map each, at the model's own
        resolution, covering exactly the photo (h / H and w / W are the scales; padding is cut off)."""


class Detector(Protocol):
    """classes: names in label order."""

    classes: tuple[str, ...]
    input: InputKind

    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """photos: (H, W, 3) uint8 RGB each. Returns boxes in pixels of each array, above the pack's score floor,
        after class-wise NMS, at most the pack's box cap (`saturated` when it was reached)."""


class Classifier(Protocol):
    """head: name of the head, `disease` or the pack's own. classes: names in output order.
    threshold: below it there is no top class."""

    head: str
    classes: tuple[str, ...]
    input: InputKind
    threshold: float

    def __call__(self, photos: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """photos: (H, W, 3) uint8 RGB each. Returns (N, C) float32 probabilities; NaN where the model gave NaN."""


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a pack, ready to use on one device."""

    segmenter: Segmenter
    detector: Detector
    classifiers: tuple[Classifier, ...]
