"""Find annotations that the model contradicts: lesions likely missed or misplaced by people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from skinbatch.annotations import pairing
from skinbatch.annotations.annotated_photos import AnnotatedPhoto, Truth
from skinbatch.annotations.displayed import same_shape
from skinbatch.errors import UsageError
from skinbatch.metrics.boxes import xywh
from skinbatch.runs.results import Results
from skinbatch.types import Status

# Two boxes mark the same lesion from this IoU on, and have nothing in common below the lower one.
SAME, APART = 0.5, 0.1

Boxes = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Hold how much the model contradicts the annotations of a photo.

    Attributes:
        value: the sum over the boxes that contradict; 0 if none does.
        missed: counted boxes where nobody annotated anything; each adds its score.
        misplaced: counted boxes that overlap an annotated box badly; each adds its score times the
            share of an IoU of 0.5 that is lacking.
    """

    value: float
    missed: int
    misplaced: int


@dataclass(frozen=True, slots=True)
class Paired:
    """Hold the annotated photos of the rows of `images`.

    Attributes:
        photos: image_id -> the annotated photo and (4,) factors that scale its boxes.
        unscored: names of annotated photos without an ok row.
        other_shape: image_ids of photos that were annotated in another shape than scored.
    """

    photos: dict[str, tuple[AnnotatedPhoto, Boxes]]
    unscored: tuple[str, ...]
    other_shape: tuple[str, ...]


def suspicion_of(
    counted: Boxes, scores: NDArray[np.float64], drawn: Boxes, crowds: Boxes
) -> Suspicion:
    """Compare the counted boxes of a photo with its annotated boxes, whatever their classes.

    Args:
        counted: (N, 4) the model's boxes.
        scores: (N,) their scores.
        drawn: (M, 4) annotated boxes.
        crowds: (K, 4) annotated regions with many lesions, in which no box is suspicious.

    >>> suspicion_of(np.array([[0, 0, 9, 9.0]]), np.array([0.8]), np.zeros((0, 4)), np.zeros((0, 4)))
    Suspicion(value=0.8, missed=1, misplaced=0)
    """
    if not len(counted):
        return Suspicion(0.0, 0, 0)
    overlaps = _ious(counted, drawn)
    # Boxes of the model that lie on a lesion which another box of the model marks well are no
    # contradiction.
    settled = (overlaps >= SAME).any(axis=0)
    fine = (overlaps[:, settled] >= APART).any(axis=1) | _inside(counted, crowds).any(axis=1)
    best = overlaps.max(axis=1, initial=0.0)
    touches = (best >= APART) | _inside(counted, drawn).any(axis=1)

    missed = ~fine & ~touches
    misplaced = ~fine & touches & (best < SAME)
    value = scores[missed].sum() + (scores * (1 - best / SAME))[misplaced].sum()
    return Suspicion(float(value), int(missed.sum()), int(misplaced.sum()))


def pair_photos(results: Results, truth: Truth) -> Paired:
    """Find the rows of the annotated photos, by file or by name.

    Raises:
        UsageError: No annotated photo has an ok row.
    """
    columns = ("image_id", "uri", "status", "width", "height")
    rows: list[dict[str, object]] = results.images(columns).to_pylist()
    photos = [photo for photo in truth.photos if photo.boxes is not None]
    if not photos:
        raise UsageError(
            f"{truth.root}: has no boxes ({truth.format}); give annotations that have them"
        )

    ids, uris = ([str(row[column]) for row in rows] for column in ("image_id", "uri"))
    pairs = pairing.pair_photos(photos, ids, uris)
    paired: dict[str, tuple[AnnotatedPhoto, Boxes]] = {}
    failed, other_shape = [], []
    for n, row_number in zip(pairs.truth.tolist(), pairs.rows.tolist(), strict=True):
        photo, row = photos[n], rows[row_number]
        if row["status"] != Status.OK:
            failed.append(photo.name)
            continue
        size = int(str(row["width"])), int(str(row["height"]))
        annotated = photo.width or size[0], photo.height or size[1]
        if same_shape(size, annotated):
            x, y = size[0] / annotated[0], size[1] / annotated[1]
            paired[ids[row_number]] = photo, np.array([x, y, x, y])
        else:
            other_shape.append(ids[row_number])
    if not paired:
        raise UsageError(
            f"{truth.root}: none of its {len(photos)} annotated photos, such as {photos[0].name}, is a scored photo of "
            f"{results.store.uri} in the same shape; give the truth of these photos"
        )
    return Paired(paired, (*pairs.unseen, *pairs.ambiguous, *failed), tuple(other_shape))


def suspicions(
    images: pa.Table, boxes: pa.Table, counted: NDArray[np.bool_], paired: Paired
) -> Iterator[tuple[str, Suspicion]]:
    """Yield the suspicion of each annotated photo of a unit. counted: (B,) the boxes that count."""
    kept = boxes.filter(pa.array(counted))
    corners = np.stack(
        [np.asarray(kept.column(name), np.float64) for name in ("x1", "y1", "x2", "y2")], axis=1
    )
    scores = np.asarray(kept.column("score"), np.float64)
    rows: dict[str, list[int]] = {}
    for row, image_id in enumerate(kept.column("image_id").to_pylist()):
        rows.setdefault(image_id, []).append(row)

    for image_id in images.column("image_id").to_pylist():
        if image_id in paired.photos:
            photo, scale = paired.photos[image_id]
            mine = rows.get(image_id, [])
            drawn = usable(photo.boxes, scale)
            yield (
                image_id,
                suspicion_of(corners[mine], scores[mine], drawn, usable(photo.crowd_boxes, scale)),
            )


def usable(boxes: NDArray[np.float32] | None, scale: Boxes) -> Boxes:
    """Return the scaled boxes that are numbers and have an area."""
    if boxes is None:
        return np.zeros((0, 4))
    good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return boxes[good].astype(np.float64) * scale


def _ious(some: Boxes, others: Boxes) -> Boxes:
    """Return (N, M) intersection over union."""
    if not len(some) or not len(others):
        return np.zeros((len(some), len(others)))
    return np.asarray(
        coco_mask.iou(xywh(some), xywh(others), np.zeros(len(others), np.uint8)), np.float64
    )


def _inside(some: Boxes, others: Boxes) -> NDArray[np.bool_]:
    """Return (N, M) whether the centre of one box lies in another."""
    centres = (some[:, None, :2] + some[:, None, 2:]) / 2
    return np.asarray(
        ((centres >= others[None, :, :2]) & (centres <= others[None, :, 2:])).all(axis=2), np.bool_
    )
