"""Cut training photos to their faces as the scorer does, and find where their skin is.

A model then learns from what it will be shown.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from skinbatch.config import ModelSettings
from skinbatch.grading.face import AFFECTABLE, find_face, skin_in_crop
from skinbatch.models.build import build_segmenter
from skinbatch.models.pack import Pack
from skinbatch.models.protocols import Segmenter
from skinbatch.train.photos.photo_store import FaceCut, Pixels, StoredPhoto, decoded

_BATCH = 8
# Longer side of a skin mask, pixels: enough to place lesions by.
_SKIN_SIDE = 160


def cut_faces(
    photos: Sequence[StoredPhoto], pack: Pack, masked: bool, device: str
) -> list[StoredPhoto]:
    """Return the photos, each with the cut that the segmenter of `pack` gives it.

    A photo without a face stays whole. masked: also keep where the skin is, for the input
    `masked_crop`.

    Raises PackError for a pack without a segmenter, and UsageError naming a file that does not
    decode.
    """
    pack.verify()
    segmenter = build_segmenter(
        pack.segmenter, pack.weights_file("segmenter"), device, ModelSettings()
    )
    cuts: list[FaceCut | None] = []
    for batch in _batches(decoded(photos, lambda _, pixels: pixels)):
        cuts += _cuts(batch, segmenter, pack.segmenter.closeups, masked)
    return [replace(photo, cut=cut) for photo, cut in zip(photos, cuts, strict=True)]


def find_skin(
    photos: Sequence[StoredPhoto],
    to_cut: Sequence[bool],
    pack: Pack,
    masked: bool,
    device: str,
    kept: Path | None = None,
) -> list[tuple[StoredPhoto, bytes]]:
    """Find the skin of photos, those of `to_cut` cut to their faces first as cut_faces does it.

    Args:
        photos: The whole photos.
        to_cut: For each photo whether it is cut.
        pack: Its segmenter finds faces and skin.
        masked: See cut_faces.
        device: The segmenter's.
        kept: A file that remembers what was found, so that a training that goes on need not look
            again.

    Returns:
        The photos, cut, each with its skin as a small PNG of what is left of it.
    """
    asked = {
        "segmenter": pack.weights["segmenter"],
        "masked": masked,
        "photos": [[str(photo.path), cut] for photo, cut in zip(photos, to_cut, strict=True)],
    }
    looked_at = _read_kept(kept, asked)
    if looked_at is None:
        looked_at = list(_look(photos, to_cut, pack, masked, device))
        _write_kept(kept, asked, looked_at)
    return [
        (replace(photo, cut=cut), skin)
        for photo, (cut, skin) in zip(photos, looked_at, strict=True)
    ]


def decode_skin(skin: bytes | None) -> NDArray[np.bool_] | None:
    """Return the mask that a PNG of find_skin holds: (h, w) bool, covering the photo."""
    if skin is None:
        return None
    return np.asarray(cv2.imdecode(np.frombuffer(skin, np.uint8), cv2.IMREAD_GRAYSCALE)) > 0


def _look(
    photos: Sequence[StoredPhoto], to_cut: Sequence[bool], pack: Pack, masked: bool, device: str
) -> Iterator[tuple[FaceCut | None, bytes]]:
    pack.verify()
    segmenter = build_segmenter(
        pack.segmenter, pack.weights_file("segmenter"), device, ModelSettings()
    )
    cuts = iter(to_cut)
    for batch in _batches(decoded(photos, lambda _, pixels: pixels)):
        for pixels, labels in zip(batch, segmenter(batch), strict=True):
            height, width = pixels.shape[:2]
            face = find_face(labels, segmenter.classes, width, height)
            if not next(cuts) or face.crop is None:
                skin = np.isin(labels, [segmenter.classes.index(name) for name in AFFECTABLE])
                yield None, _small_png(skin, (width, height))
                continue
            x1, y1, x2, y2 = face.crop
            in_crop = skin_in_crop(face)
            png = (
                cv2.imencode(".png", in_crop.astype(np.uint8) * 255)[1].tobytes()
                if masked
                else None
            )
            yield FaceCut(face.crop, png), _small_png(in_crop, (x2 - x1, y2 - y1))


def _small_png(skin: NDArray[np.bool_], size: tuple[int, int]) -> bytes:
    """Return a mask as PNG. size: width and height of the photo that the mask covers."""
    scale = min(1.0, _SKIN_SIDE / max(size))
    small = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    mask = cv2.resize(skin.astype(np.uint8) * 255, small, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".png", np.where(np.asarray(mask) >= 128, 255, 0).astype(np.uint8))[
        1
    ].tobytes()


def _read_kept(
    file: Path | None, asked: dict[str, Any]
) -> list[tuple[FaceCut | None, bytes]] | None:
    """Return what an earlier start found for the same request; None if there is nothing."""
    if file is None or not file.exists():
        return None
    record = json.loads(file.read_text(encoding="utf-8"))
    if record["asked"] != asked:
        return None
    cuts: list[tuple[FaceCut | None, bytes]] = []
    for crop, skin_of_face, skin in record["found"]:
        png = None if skin_of_face is None else b64decode(skin_of_face)
        cuts.append((None if crop is None else FaceCut(tuple(crop), png), b64decode(skin)))
    return cuts


def _write_kept(
    file: Path | None, asked: dict[str, Any], cuts: Sequence[tuple[FaceCut | None, bytes]]
) -> None:
    if file is None:
        return
    rows = []
    for cut, skin in cuts:
        of_face = None if cut is None or cut.skin is None else b64encode(cut.skin).decode()
        rows.append([None if cut is None else cut.crop, of_face, b64encode(skin).decode()])
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps({"asked": asked, "found": rows}), encoding="utf-8")
    partial.replace(file)


def _batches(photos: Iterator[Pixels]) -> Iterator[list[Pixels]]:
    batch: list[Pixels] = []
    for pixels in photos:
        batch.append(pixels)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _cuts(
    batch: Sequence[Pixels], segmenter: Segmenter, closeups: bool, masked: bool
) -> Iterator[FaceCut | None]:
    for pixels, labels in zip(batch, segmenter(batch), strict=True):
        height, width = pixels.shape[:2]
        face = find_face(labels, segmenter.classes, width, height, closeups=closeups)
        if face.crop is None:
            yield None
            continue
        skin = (
            cv2.imencode(".png", skin_in_crop(face).astype(np.uint8) * 255)[1].tobytes()
            if masked
            else None
        )
        yield FaceCut(face.crop, skin)
