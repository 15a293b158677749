"""Draw a segmenter's training views of faces, and measure how well it finds their parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from skinbatch.annotations.masks import CLASSES as TRUTH_CLASSES
from skinbatch.annotations.masks import UNSURE
from skinbatch.metrics.segmentation import overlaps
from skinbatch.models.preprocess import Normalisation, pad_to_square
from skinbatch.models.stages import SegmenterStage
from skinbatch.train.photos.augment import blemish, clutter
from skinbatch.train.photos.normalise import normalised
from skinbatch.train.photos.photo_store import PhotoStore, Pixels, StoredPhoto, working_size
from skinbatch.train.photos.samples import Samples
from skinbatch.train.photos.views import (
    Matrix,
    mirrors,
    relit,
    spoilt,
    translation,
    view_matrix,
    warp,
    warp_labels,
)
from skinbatch.train.recipe_sections import AugmentSection

# Weight of the two losses on the context features. BiSeNet's paper uses 1; the starter was trained
# with 0.4.
AUXILIARY_WEIGHT = 0.4
# A face that is put before another background may be this share farther away than [augment] scale
# allows.
FARTHER = 0.5
# Sides of a close-up as shares of the photo's longer side, from and to.
CLOSEUP_SIDES = (0.12, 0.5)
# Share of a close-up that an ear must cover to count as what it shows, and as skin of the face.
EAR = 0.2
# A face has at least this share of background; a photo with less is already a close-up.
_OUTLINE = 0.05
_AFFECTABLE = ("skin", "nose")
_EAR_NUMBERS = [TRUTH_CLASSES.index(name) for name in ("left_ear", "right_ear")]
_VALID_BATCH = 16


@dataclass(frozen=True, slots=True)
class LabelledPhoto:
    """Hold a photo with its labels.

    Attributes:
        labels: a PNG of the truth's numbers, (h, w), of any resolution that covers the photo.
        source: the name of its source on the card.
        group: the person, or whatever else [data] `group` names; None if unknown.
    """

    photo: StoredPhoto
    labels: bytes
    source: str = ""
    group: str | None = None

    def numbers(self) -> Pixels:
        """Return the truth's numbers, (h, w) uint8. All but 0 and UNSURE belong to the person."""
        return np.asarray(
            cv2.imdecode(np.frombuffer(self.labels, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8
        )


class FaceSamples:
    """Draw views of faces with labels. Implements Samples."""

    def __init__(
        self,
        faces: Sequence[LabelledPhoto],
        table: NDArray[np.uint8],
        stage: SegmenterStage,
        augment: AugmentSection,
        memory: int,
    ) -> None:
        """Create the samples.

        Args:
            table: (256,), the truth's number -> the model's class. UNSURE stays UNSURE.
            memory: bytes for decoded photos.
        """
        self._faces, self._table, self._augment = tuple(faces), table, augment
        self._near = closeup_table(table, stage.classes)
        self._outlined = [float((face.numbers() == 0).mean()) >= _OUTLINE for face in faces]
        self._size, self._fill = stage.size, Normalisation(stage.mean, stage.std).fill
        photos = [face.photo for face in faces]
        self._store = PhotoStore(photos, lambda _, pixels: working_size(pixels, stage.size), memory)
        self._swapped = swapped(stage.classes)
        self._affected = np.zeros(256, np.bool_)
        self._affected[[stage.classes.index(name) for name in _AFFECTABLE]] = True
        self._skin = np.zeros(256, np.bool_)
        self._skin[
            [n for n, name in enumerate(stage.classes) if name in (*_AFFECTABLE, "body")]
        ] = True
        self._skin[UNSURE] = True
        self._far = augment.model_copy(
            update={
                "scale": (
                    augment.scale[0] * FARTHER,
                    max(augment.scale[0] * FARTHER, min(0.9, augment.scale[1])),
                )
            }
        )
        self._inside = augment.model_copy(
            update={"scale": (0.95, 1.3), "translate": 0.05, "crop": 0.0}
        )
        self._behind = augment.model_copy(
            update={"scale": (1.5, 5.0), "translate": 0.9, "crop": 0.0}
        )

    def __len__(self) -> int:
        return len(self._faces)

    def sample(self, index: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Return a view, (S, S, 3) uint8, and its classes, (S, S) uint8, some of them UNSURE."""
        outlined = self._outlined[index]
        if outlined and self._augment.closeup and rng.random() < self._augment.closeup:
            square, classes, mirrored = self._closeup(index, rng)
        else:
            moved = outlined and rng.random() < self._augment.scene
            square, numbers, mirrored = self._view(
                index, self._far if moved else self._augment, rng
            )
            if moved:
                square = np.where((numbers > 0)[..., None], square, self._background(rng))
            classes = self._table[numbers]
        if mirrored:
            classes = self._swapped[classes]
        if self._augment.blemish and rng.random() < 0.5:
            square = blemish(square, self._affected[classes], rng, self._augment.blemish)
        return spoilt(relit(square, self._augment, rng), self._augment, rng), classes

    def _closeup(self, index: int, rng: np.random.Generator) -> tuple[Pixels, Pixels, bool]:
        """Return a small window around a place on the skin, the nose or an ear.

        It is so near that skin of the neck looks like the cheek's, so the neck is left
        out. An ear is skin of the face if it is what the window shows, and is left out otherwise:
        in whole faces the truth counts it as background.
        """
        photo, numbers = self._store[index], self._faces[index].numbers()
        places = np.flatnonzero(
            self._affected[self._near[numbers]] | np.isin(numbers, _EAR_NUMBERS)
        )
        if not len(places):
            square, numbers, mirrored = self._view(index, self._augment, rng)
            return square, self._table[numbers], mirrored

        y, x = divmod(int(rng.choice(places)), numbers.shape[1])
        height, width = photo.shape[:2]
        low, high = np.log(CLOSEUP_SIDES)
        side = min(float(np.exp(rng.uniform(low, high))) * max(height, width), height, width)
        left = float(np.clip((x + 0.5) * width / numbers.shape[1] - side / 2, 0, width - side))
        top = float(np.clip((y + 0.5) * height / numbers.shape[0] - side / 2, 0, height - side))

        window = view_matrix((round(side), round(side)), self._size, "pad", self._inside, rng)
        matrix = window @ translation(-left, -top)
        square, seen = self._through(photo, numbers, matrix)
        classes = self._near[seen]
        ear = np.isin(seen, _EAR_NUMBERS) & (classes == UNSURE)
        if ear.mean() >= EAR:
            classes = np.where(ear, np.uint8(self._table[TRUTH_CLASSES.index("skin")]), classes)
        return square, classes, mirrors(matrix)

    def _view(
        self, index: int, augment: AugmentSection, rng: np.random.Generator
    ) -> tuple[Pixels, Pixels, bool]:
        photo, numbers = self._store[index], self._faces[index].numbers()
        height, width = photo.shape[:2]
        matrix = view_matrix((height, width), self._size, "pad", augment, rng)
        return *self._through(photo, numbers, matrix), mirrors(matrix)

    def _through(self, photo: Pixels, numbers: Pixels, matrix: Matrix) -> tuple[Pixels, Pixels]:
        height, width = photo.shape[:2]
        of_labels: Matrix = matrix @ np.diag(
            (width / numbers.shape[1], height / numbers.shape[0], 1.0)
        )
        square = warp(photo, matrix, self._size, self._fill)
        return square, warp_labels(numbers, of_labels, self._size)

    def _background(self, rng: np.random.Generator) -> Pixels:
        """Return a part of another photo without skin, or random colours."""
        square, numbers, _ = self._view(int(rng.integers(len(self))), self._behind, rng)
        if rng.random() < 0.5 or self._skin[self._table[numbers]].any():
            return clutter(rng, self._size)
        return relit(square, self._augment, rng)


class SegmenterTask:
    """Learn by cross-entropy over the sure pixels, with BiSeNet's two auxiliary losses.

    The score is the mean Dice of all classes but the background, over the pixels of all validation
    photos of a source. With several sources it is the mean of theirs.
    """

    def __init__(
        self,
        samples: Samples,
        valid: Sequence[LabelledPhoto],
        table: NDArray[np.uint8],
        stage: SegmenterStage,
        memory: int,
        *,
        smoothing: float = 0.0,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Create the task.

        Args:
            table: (256,), the truth's number -> the model's class.
            memory: bytes for decoded photos of `valid`.
            smoothing: of the labels.
            weights: one for each class.
        """
        self.samples = samples
        self.valid, self._table, self._stage = tuple(valid), table, stage
        self._smoothing = smoothing
        fill = Normalisation(stage.mean, stage.std).fill
        self._squares = PhotoStore(
            [face.photo for face in valid],
            lambda _, pixels: _Square(*pad_to_square(pixels, stage.size, fill)),
            memory,
        )
        self._weights = None if weights is None else torch.tensor(weights, dtype=torch.float32)

    def prepare(self, photos: Tensor) -> Tensor:
        return normalised(photos, self._stage.mean, self._stage.std)

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        weights = None if self._weights is None else self._weights.to(x.device)
        made = network(x)
        if not (y != UNSURE).any():
            # The mean over no pixel would not be a number.
            return sum(logits.sum() for logits in made) * 0.0
        main, at16, at32 = (
            F.cross_entropy(
                logits.float(),
                y.long(),
                weight=weights,
                label_smoothing=self._smoothing,
                ignore_index=UNSURE,
            )
            for logits in made
        )
        return main + AUXILIARY_WEIGHT * (at16 + at32)

    def evaluate(self, network: nn.Module, device: torch.device) -> Mapping[str, float]:
        tables = self.pixels(network, device)
        dice, _ = _dice(tables)
        by_class = {
            f"dice {name}": round(float(d), 4)
            for name, d in zip(self._stage.classes, dice, strict=True)
        }
        scores = {source: _score(tables[places]) for source, places in self.sources().items()}
        by_source = (
            {f"score {source}": round(score, 4) for source, score in scores.items()}
            if len(scores) > 1
            else {}
        )
        return {"score": round(float(np.mean(list(scores.values()))), 5), **by_class, **by_source}

    def sources(self) -> dict[str, NDArray[np.int64]]:
        """Return the places of the validation photos of each source."""
        names = np.array([face.source for face in self.valid])
        return {name: np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())}

    @torch.inference_mode()
    def pixels(self, network: nn.Module, device: torch.device) -> NDArray[np.int64]:
        """Return `metrics.segmentation.overlaps` of every validation photo, (N, classes, 3).

        Pixels are those of the mask's own resolution, to which the network's labels are enlarged.
        Unsure pixels are left out.
        """
        squares = iter(self._squares)
        tables = []
        for start in range(0, len(self.valid), _VALID_BATCH):
            faces = self.valid[start : start + _VALID_BATCH]
            shown = [next(squares) for _ in faces]
            batch = torch.from_numpy(np.stack([square.pixels for square in shown])).to(device)
            labels = network(self.prepare(batch)).argmax(1).to(torch.uint8).cpu().numpy()
            for face, square, label_map in zip(faces, shown, labels, strict=True):
                truth = self._table[face.numbers()]
                h, w = square.extent
                seen = np.asarray(
                    cv2.resize(
                        label_map[:h, :w], truth.shape[::-1], interpolation=cv2.INTER_NEAREST
                    )
                )
                sure = truth != UNSURE
                tables.append(overlaps(truth[sure], seen[sure], len(self._stage.classes)))
        return np.stack(tables)


@dataclass(frozen=True, slots=True)
class _Square:
    """Hold a photo in a square. pixels: (S, S, 3). extent: (h, w) of the photo in it."""

    pixels: Pixels
    extent: tuple[int, int]

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes


def swapped(classes: Sequence[str]) -> NDArray[np.uint8]:
    """Return the class that each class becomes in a mirror, (256,).

    A person's left eye becomes the right one.
    """
    other = {"left": "right", "right": "left", "l": "r", "r": "l"}
    table = np.arange(256, dtype=np.uint8)
    for number, name in enumerate(classes):
        side, _, part = name.partition("_")
        twin = f"{other.get(side)}_{part}"
        if twin in classes:
            table[number] = classes.index(twin)
    return table


def closeup_table(table: NDArray[np.uint8], classes: Sequence[str]) -> NDArray[np.uint8]:
    """Return `table` for close-ups, in which necks and ears are unsure.

    A model with classes of its own for necks or ears also learns them in close-ups.
    """
    near = table.copy()
    for name in ("neck", "left_ear", "right_ear"):
        number = TRUTH_CLASSES.index(name)
        if name not in classes:
            near[number] = UNSURE
    return near


def _dice(tables: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return every class's Dice over the pixels of all photos, and its number of true pixels."""
    both, true, predicted = tables.sum(axis=0).T
    return 2 * both / np.maximum(true + predicted, 1), true


def _score(tables: NDArray[np.int64]) -> float:
    """Return the mean Dice of the classes in the photos.

    The background is left out unless the photos show nothing else.
    """
    dice, true = _dice(tables)
    shown = [k for k in range(1, len(dice)) if true[k]]
    return float(np.mean(dice[shown])) if shown else 0.0
