"""Training photos cut to their faces as the scorer cuts them, so that a model learns from what it will be shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np

from skinbatch.config import ModelSettings
from skinbatch.grading.face import find_face, skin_in_crop
from skinbatch.models.base import Segmenter
from skinbatch.models.build import build_segmenter
from skinbatch.models.pack import Pack
from skinbatch.train.photos.photo_store import FaceCut, Pixels, StoredPhoto, decoded

_BATCH = 8


def cut_faces(photos: Sequence[StoredPhoto], pack: Pack, masked: bool, device: str) -> list[StoredPhoto]:
    """photos, each with the cut that the segmenter of `pack` gives it; without a face it stays whole.

    masked: also where the skin is, for the input `masked_crop`. Raises PackError for a pack without segmenter, UsageError
    naming a file that will not decode.
    """
    pack.verify()
    segmenter = build_segmenter(pack.segmenter, pack.weights_file("segmenter"), device, ModelSettings())
    cuts: list[FaceCut | None] = []
    for batch in _batches(decoded(photos, lambda _, pixels: pixels)):
        cuts += _cuts(batch, segmenter, pack.segmenter.closeups, masked)
    return [replace(photo, cut=cut) for photo, cut in zip(photos, cuts, strict=True)]


def _batches(photos: Iterator[Pixels]) -> Iterator[list[Pixels]]:
    batch: list[Pixels] = []
    for pixels in photos:
        batch.append(pixels)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _cuts(batch: Sequence[Pixels], segmenter: Segmenter, closeups: bool, masked: bool) -> Iterator[FaceCut | None]:
    for pixels, labels in zip(batch, segmenter(batch), strict=True):
        height, width = pixels.shape[:2]
        face = find_face(labels, segmenter.classes, width, height, closeups=closeups)
        if face.crop is None:
            yield None
            continue
        skin = cv2.imencode(".png", skin_in_crop(face).astype(np.uint8) * 255)[1].tobytes() if masked else None
        yield FaceCut(face.crop, skin)
