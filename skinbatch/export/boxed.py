"""What is exported of one photo, and where it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skinbatch.errors import UsageError


@dataclass(frozen=True, slots=True)
class BoxedPhoto:
    """name: the photo's key. width, height: pixels as displayed, None where nobody says. boxes: (N, 4) float32, pixels,
    x1 y1 x2 y2, all finite. labels: N names of classes. scores: (N,) float32, None for what people drew. difficult, crowd_boxes,
    crowd_labels, not_kept: as in AnnotatedPhoto. swapped: how many boxes had swapped corners before they were put right.

    Raises UsageError naming the photo where a box or a label cannot be written so that it is read back.
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

    def __post_init__(self) -> None:
        for what, boxes in (("box", self.boxes), ("crowd", self.crowd_boxes)):
            bad = [] if boxes is None else np.flatnonzero(~np.isfinite(boxes).all(1)).tolist()
            if bad:
                raise UsageError(f"{self.name}: {what} {bad[0] + 1} is not of numbers; mend it, or take it out")
        for label in {*self.labels, *self.crowd_labels}:
            if label != label.strip() or not (label.isprintable() or not label):
                raise UsageError(
                    f"{self.name}: class {label!r} has blanks around it or control characters, which no format keeps; rename it"
                )


class Boxes(Protocol):
    """A source of boxes. class_names: in its own order. complete: False where a run has not scored everything yet.
    left_out: why photos were not exported -> how many; complete when `photos` is."""

    class_names: tuple[str, ...]
    complete: bool
    left_out: Counter[str]

    def photos(self) -> Iterator[BoxedPhoto]:
        """Streams, once."""


def decimals(values: NDArray[np.float32]) -> list[str]:
    """The shortest decimal number for each value that is read back, by way of a double, as exactly that float32."""
    texts = [str(value) for value in values]
    same = np.array([float(text) for text in texts], np.float64).astype(np.float32) == values
    return [text if ok else repr(float(value)) for text, ok, value in zip(texts, same, values, strict=True)]
