"""Skin, nose and other parts of a face, pixel by pixel: what a segmenter's training sees and how it is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from skinbatch.metrics.segmentation import overlaps
from skinbatch.models.preprocess import Normalisation, pad_to_square
from skinbatch.models.stages import SegmenterStage
from skinbatch.train.photos.augment import blemish, clutter
from skinbatch.train.photos.normalise import normalised
from skinbatch.train.photos.photo_store import PhotoStore, Pixels, StoredPhoto, working_size
from skinbatch.train.photos.views import Matrix, mirrors, relit, spoilt, view_matrix, warp, warp_labels
from skinbatch.train.recipe_sections import AugmentSection

AUXILIARY_WEIGHT = 0.4
"""Of the two losses on the context features. BiSeNet's paper says 1; 0.4 is what the starter was trained with."""
FARTHER = 0.5
"""A face that is put before another background is up to so much farther away than [augment] scale says."""
_VALID_BATCH = 16


@dataclass(frozen=True, slots=True)
class LabelledPhoto:
    """labels: a PNG of the truth's numbers, (h, w), of any resolution that covers the photo."""

    photo: StoredPhoto
    labels: bytes

    def numbers(self) -> Pixels:
        """(h, w) uint8, the truth's own numbers; what is not 0 belongs to the person."""
        return np.asarray(cv2.imdecode(np.frombuffer(self.labels, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)


class FaceSamples:
    """Views of faces with labels. Implements Samples."""

    def __init__(
        self,
        faces: Sequence[LabelledPhoto],
        table: NDArray[np.uint8],
        stage: SegmenterStage,
        augment: AugmentSection,
        memory: int,
    ) -> None:
        """table: (256,) the truth's number -> the model's class. memory: bytes for decoded photos."""
        self._faces, self._table, self._augment = tuple(faces), table, augment
        self._size, self._fill = stage.size, Normalisation(stage.mean, stage.std).fill
        photos = [face.photo for face in faces]
        self._store = PhotoStore(photos, lambda _, pixels: working_size(pixels, stage.size), memory)
        self._swapped = swapped(stage.classes)
        self._affected = np.array([name in ("skin", "nose") for name in stage.classes])
        self._far = augment.model_copy(
            update={"scale": (augment.scale[0] * FARTHER, max(augment.scale[0] * FARTHER, min(0.9, augment.scale[1])))}
        )
        self._behind = augment.model_copy(update={"scale": (1.5, 5.0), "translate": 0.9, "crop": 0.0})

    def __len__(self) -> int:
        return len(self._faces)

    def sample(self, index: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """(S, S, 3) uint8, and (S, S) uint8 classes."""
        alone = rng.random() >= self._augment.scene
        square, numbers, mirrored = self._view(index, self._augment if alone else self._far, rng)
        if not alone:
            square = np.where((numbers > 0)[..., None], square, self._background(rng))
        classes = self._table[numbers]
        if mirrored:
            classes = self._swapped[classes]
        if self._augment.blemish and rng.random() < 0.5:
            square = blemish(square, self._affected[classes], rng, self._augment.blemish)
        return spoilt(relit(square, self._augment, rng), self._augment, rng), classes

    def _view(self, index: int, augment: AugmentSection, rng: np.random.Generator) -> tuple[Pixels, Pixels, bool]:
        photo, numbers = self._store[index], self._faces[index].numbers()
        height, width = photo.shape[:2]
        matrix = view_matrix((height, width), self._size, "pad", augment, rng)
        square = warp(photo, matrix, self._size, self._fill)
        of_labels: Matrix = matrix @ np.diag((width / numbers.shape[1], height / numbers.shape[0], 1.0))
        return square, warp_labels(numbers, of_labels, self._size), mirrors(matrix)

    def _background(self, rng: np.random.Generator) -> Pixels:
        """A part of another photo without skin, or colours without meaning."""
        square, numbers, _ = self._view(int(rng.integers(len(self))), self._behind, rng)
        if rng.random() < 0.5 or self._affected[self._table[numbers]].any():
            return clutter(rng, self._size)
        return relit(square, self._augment, rng)


class SegmenterTask:
    """Cross-entropy per pixel, with BiSeNet's two auxiliary losses; the score is the mean Dice of all classes but the
    background, over the pixels of all validation photos."""

    def __init__(
        self,
        samples: FaceSamples,
        valid: Sequence[LabelledPhoto],
        table: NDArray[np.uint8],
        stage: SegmenterStage,
        memory: int,
        *,
        smoothing: float = 0.0,
        weights: Sequence[float] | None = None,
    ) -> None:
        """table: the truth's number -> the model's class. memory: bytes for decoded photos of `valid`. smoothing: of the
        labels. weights: of the classes."""
        self.samples = samples
        self.valid, self._table, self._stage = tuple(valid), table, stage
        self._smoothing = smoothing
        fill = Normalisation(stage.mean, stage.std).fill
        self._squares = PhotoStore(
            [face.photo for face in valid], lambda _, pixels: _Square(*pad_to_square(pixels, stage.size, fill)), memory
        )
        self._weights = None if weights is None else torch.tensor(weights, dtype=torch.float32)

    def prepare(self, photos: Tensor) -> Tensor:
        return normalised(photos, self._stage.mean, self._stage.std)

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        weights = None if self._weights is None else self._weights.to(x.device)
        main, at16, at32 = (
            F.cross_entropy(logits, y.long(), weight=weights, label_smoothing=self._smoothing) for logits in network(x)
        )
        return main + AUXILIARY_WEIGHT * (at16 + at32)

    def evaluate(self, network: nn.Module, device: torch.device) -> Mapping[str, float]:
        both, true, found = self.pixels(network, device).sum(axis=0).T
        dice = 2 * both / np.maximum(true + found, 1)
        shown = [k for k in range(1, len(dice)) if true[k]]
        by_class = {f"dice {name}": round(float(d), 4) for name, d in zip(self._stage.classes, dice, strict=True)}
        return {"score": round(float(np.mean(dice[shown])) if shown else 0.0, 5), **by_class}

    @torch.inference_mode()
    def pixels(self, network: nn.Module, device: torch.device) -> NDArray[np.int64]:
        """(N, classes, 3) `metrics.segmentation.overlaps` of every validation photo, at its mask's own resolution, to
        which the network's labels are enlarged."""
        squares = iter(self._squares)
        tables = []
        for start in range(0, len(self.valid), _VALID_BATCH):
            faces = self.valid[start : start + _VALID_BATCH]
            shown = [next(squares) for _ in faces]
            batch = torch.from_numpy(np.stack([square.pixels for square in shown])).to(device)
            labels = network(self.prepare(batch)).argmax(1).to(torch.uint8).cpu().numpy()
            for face, square, found in zip(faces, shown, labels, strict=True):
                truth = self._table[face.numbers()]
                h, w = square.extent
                seen = cv2.resize(found[:h, :w], truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
                tables.append(overlaps(truth, np.asarray(seen, np.uint8), len(self._stage.classes)))
        return np.stack(tables)


@dataclass(frozen=True, slots=True)
class _Square:
    """pixels: (S, S, 3); extent: the (h, w) that the photo takes of them."""

    pixels: Pixels
    extent: tuple[int, int]

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes


def swapped(classes: Sequence[str]) -> NDArray[np.uint8]:
    """(C,) the class that each becomes in a mirror: a person's left eye is the right one there."""
    other = {"left": "right", "right": "left", "l": "r", "r": "l"}
    table = np.arange(len(classes), dtype=np.uint8)
    for number, name in enumerate(classes):
        side, _, part = name.partition("_")
        twin = f"{other.get(side)}_{part}"
        if twin in classes:
            table[number] = classes.index(twin)
    return table
