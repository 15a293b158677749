"""Keep the boxes of many photos in flat arrays.

Two million boxes fit in memory this way; two million objects would not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Boxes:
    """Hold one row for each box, with the rows of a photo together.

    photos: number of photos, including those without boxes. photo: (N,) int64, ascending, index of
    the box's photo. xyxy: (N, 4) float64, pixels, x1 y1 x2 y2. label: (N,) int64, index of its
    class. score: (N,) float64; 1 for true boxes.
    """

    photos: int
    photo: Ints
    xyxy: Floats
    label: Ints
    score: Floats

    def __post_init__(self) -> None:
        n = len(self.photo)
        if self.xyxy.shape != (n, 4) or self.label.shape != (n,) or self.score.shape != (n,):
            raise ValueError(
                f"photo ({n},), xyxy {self.xyxy.shape}, label {self.label.shape}, score {self.score.shape} do not belong together"
            )
        if n and (
            np.any(np.diff(self.photo) < 0) or self.photo[0] < 0 or self.photo[-1] >= self.photos
        ):
            raise ValueError(f"photo numbers have to ascend within 0 to {self.photos - 1}")

    def __len__(self) -> int:
        return len(self.photo)

    @classmethod
    def stack(
        cls,
        xyxy: Sequence[ArrayLike],
        scores: Sequence[ArrayLike] | None = None,
        labels: Sequence[ArrayLike] | None = None,
    ) -> Boxes:
        """Join the arrays of single photos.

        Each photo has (n, 4) boxes, (n,) scores (None: 1) and (n,) labels (None: 0).
        """
        each = [np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in xyxy]
        photo = np.repeat(np.arange(len(each)), [len(boxes) for boxes in each]).astype(np.int64)
        score = np.ones(len(photo)) if scores is None else _joined(scores).astype(np.float64)
        label = (
            np.zeros(len(photo), np.int64) if labels is None else _joined(labels).astype(np.int64)
        )
        return cls(len(each), photo, np.concatenate([np.zeros((0, 4)), *each]), label, score)

    def only(self, keep: NDArray[np.bool_]) -> Boxes:
        """Return the boxes where `keep`, (N,) bool, is true. The number of photos stays."""
        return Boxes(
            self.photos, self.photo[keep], self.xyxy[keep], self.label[keep], self.score[keep]
        )

    def per_photo(self) -> Ints:
        """Return (photos,) the number of boxes of each photo."""
        return np.bincount(self.photo, minlength=self.photos).astype(np.int64)


def xywh(xyxy: Floats) -> Floats:
    """Return (N, 4) corner, width and height, as pycocotools takes boxes. xyxy: (N, 4) corners.

    >>> xywh(np.array([[1.0, 2, 4, 8]])).tolist()
    [[1.0, 2.0, 3.0, 6.0]]
    """
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)


def _joined(parts: Sequence[ArrayLike]) -> Floats:
    return np.concatenate(
        [np.zeros(0), *(np.asarray(part, np.float64).reshape(-1) for part in parts)]
    )
