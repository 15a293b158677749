"""Describe an exported photo, and the source that it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skinbatch.errors import UsageError


@dataclass(frozen=True, slots=True)
class Prediction:
    """Hold a photo's results besides its boxes, for tools that show them and sort by them.

    Attributes:
        model_version: the pack and the fingerprint of the scoring.
        uncertainty: 0 to 1, see skinbatch.grading.uncertainty.
        values: name -> value, such as the grade.
    """

    model_version: str
    uncertainty: float
    values: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExportedPhoto:
    """Hold an exported photo.

    Attributes:
        name: the photo's key.
        width, height: pixels as displayed; None if unknown.
        boxes: (N, 4) float32, pixels, x1 y1 x2 y2, all finite.
        labels: N names of classes.
        scores: (N,) float32; None for boxes that people drew.
        difficult, crowd_boxes, crowd_labels, not_kept: as in AnnotatedPhoto.
        swapped: number of boxes whose corners were swapped before they were put right.
        address: where the photo is, as s3://... or relative to the folder above the source; None
            if unknown.
        prediction: set if the boxes are those of a model.
        drawn: boxes and labels that people drew on a photo whose own boxes are those of a model.

    Raises:
        UsageError: a box or a label cannot be written so that it is read back; the message names
            the photo.
    """

    name: str
    width: int | None
    height: int | None
    boxes: NDArray[np.float32]
    labels: tuple[str, ...]
    scores: NDArray[np.float32] | None = None
    difficult: frozenset[int] = frozenset()
    crowd_boxes: NDArray[np.float32] | None = None
    crowd_labels: tuple[str, ...] = ()
    not_kept: Mapping[str, int] = field(default_factory=dict)
    swapped: int = 0
    address: str | None = None
    prediction: Prediction | None = None
    drawn: tuple[NDArray[np.float32], tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        for what, boxes in (("box", self.boxes), ("crowd", self.crowd_boxes)):
            bad = [] if boxes is None else np.flatnonzero(~np.isfinite(boxes).all(1)).tolist()
            if bad:
                raise UsageError(
                    f"{self.name}: {what} {bad[0] + 1} has values that are not numbers; correct it, or remove it"
                )
        for label in {*self.labels, *self.crowd_labels}:
            if label != label.strip() or not (label.isprintable() or not label):
                raise UsageError(
                    f"{self.name}: class {label!r} has blanks around it or control characters, which no format keeps; rename it"
                )


class BoxSource(Protocol):
    """Give out the boxes of a source.

    Attributes:
        class_names: in the source's own order.
        complete: False if a run has not scored everything yet.
        left_out: reason -> number of photos that were not exported; final once `photos` has ended.
        notes: what a user needs to know about the chosen photos.
    """

    class_names: tuple[str, ...]
    complete: bool
    left_out: Counter[str]
    notes: tuple[str, ...]

    def photos(self) -> Iterator[ExportedPhoto]:
        """Yield the photos, once."""


def decimals(values: NDArray[np.float32]) -> list[str]:
    """Return the shortest decimal number for each value that is read back as exactly that float32.

    It is read as a double first.
    """
    texts = [str(value) for value in values]
    same = np.array([float(text) for text in texts], np.float64).astype(np.float32) == values
    return [
        text if ok else repr(float(value))
        for text, ok, value in zip(texts, same, values, strict=True)
    ]
