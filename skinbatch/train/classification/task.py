"""Draw a classifier's training views of photos, and measure how well it finds classes."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.calibration import Calibration
from skinbatch.metrics.classification import MEAN, classification
from skinbatch.models.preprocess import Normalisation, centre_square, pad_to_square
from skinbatch.models.stages import ClassifierStage
from skinbatch.train.photos.normalise import normalised
from skinbatch.train.photos.photo_store import PhotoStore, Pixels, StoredPhoto, working_size
from skinbatch.train.photos.samples import Balanced, Samples
from skinbatch.train.photos.views import relit, spoilt, view_matrix, warp
from skinbatch.train.recipe_data import Window
from skinbatch.train.recipe_sections import AugmentSection, CalibrationSection

Floats = NDArray[np.float32]

WHOLE: Window = (0.0, 0.0, 1.0, 1.0)
_BATCH = 32


@dataclass(frozen=True, slots=True)
class ClassedPhoto:
    """Hold a photo with its classes.

    Attributes:
        classes: of the model; () for none of them.
        windows: see PhotoView.
        group: the person, or whatever else [data] `group` names; None if unknown.
        negative: the folder of negatives that the photo is from, or None.
    """

    photo: StoredPhoto
    classes: tuple[str, ...]
    windows: tuple[Window, ...] = (WHOLE,)
    group: str | None = None
    negative: str | None = None


def targets(photos: Sequence[ClassedPhoto], classes: Sequence[str]) -> Floats:
    """Return (N, C), 1 where a photo has a class."""
    truth = np.zeros((len(photos), len(classes)), np.float32)
    for row, photo in enumerate(photos):
        truth[row, [classes.index(name) for name in photo.classes]] = 1
    return truth


def window_of(pixels: Pixels, window: Window) -> Pixels:
    """Return the part of a photo in a window, (h, w, 3), at least one pixel.

    window: in shares of the photo.
    """
    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = (
        round(share * side)
        for share, side in zip(window, (width, height, width, height), strict=True)
    )
    return np.ascontiguousarray(
        pixels[min(y1, height - 1) : max(y2, y1 + 1), min(x1, width - 1) : max(x2, x1 + 1)]
    )


class PhotoSamples:
    """Draw views of photos with classes. Implements Samples."""

    def __init__(
        self,
        photos: Sequence[ClassedPhoto],
        stage: ClassifierStage,
        augment: AugmentSection,
        memory: int,
    ) -> None:
        """Create the samples. memory: bytes for decoded photos."""
        self.photos, self._stage, self._augment = tuple(photos), stage, augment
        self.targets = targets(self.photos, stage.classes)
        self._fill = Normalisation(stage.mean, stage.std).fill
        stored = [photo.photo for photo in photos]
        self._store = PhotoStore(stored, lambda _, pixels: working_size(pixels, stage.size), memory)

    def __len__(self) -> int:
        return len(self.photos)

    def sample(self, index: int, rng: np.random.Generator) -> tuple[Pixels, Floats]:
        """Return a view, (S, S, 3) uint8, and its targets, (C,) float32."""
        windows = self.photos[index].windows
        part = window_of(self._store[index], windows[int(rng.integers(len(windows)))])
        height, width = part.shape[:2]
        matrix = view_matrix((height, width), self._stage.size, self._stage.fit, self._augment, rng)
        square = warp(part, matrix, self._stage.size, self._fill)
        return spoilt(relit(square, self._augment, rng), self._augment, rng), self.targets[index]


class ClassifierTask:
    """Learn by cross-entropy, of each class (`logistic`) or of all together (`softmax`).

    Rare classes can get larger weights. The score is the mean average precision of the classes
    that are not `apart`.
    """

    def __init__(
        self,
        samples: PhotoSamples,
        valid: Sequence[ClassedPhoto],
        stage: ClassifierStage,
        memory: int,
        *,
        smoothing: float = 0.0,
        weighting: Literal["none", "balanced", "sqrt"] = "none",
        sampling: Literal["all", "balanced"] = "all",
        apart: Collection[str] = (),
    ) -> None:
        """Create the task.

        Args:
            memory: bytes for decoded photos of `valid`.
            smoothing: of the targets, towards one half (logistic) or the same value for all classes
                (softmax).
        """
        self._views = samples
        self.samples: Samples = samples if sampling == "all" else balanced(samples)
        self.valid, self._stage, self._apart = tuple(valid), stage, apart
        self._smoothing = smoothing
        self._squares = PhotoStore(
            [p.photo for p in valid],
            lambda n, pixels: self._square(pixels, self.valid[n].windows[0]),
            memory,
        )
        self.weights = class_weights(samples.targets, stage.outputs == "softmax", weighting)

    def prepare(self, photos: Tensor) -> Tensor:
        return normalised(photos, self._stage.mean, self._stage.std)

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        weights = None if self.weights is None else torch.from_numpy(self.weights).to(x.device)
        logits = network(x).float()
        if self._stage.outputs == "softmax":
            # A photo of several classes counts in equal parts for each.
            return F.cross_entropy(
                logits, y / y.sum(1, keepdim=True), weights, label_smoothing=self._smoothing
            )
        smooth = y * (1 - self._smoothing) + self._smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weights)

    def evaluate(self, network: nn.Module, device: torch.device) -> Mapping[str, float]:
        truth = targets(self.valid, self._stage.classes) > 0
        probability = self.probabilities(network, device)
        chosen = choose(probability, self._stage.threshold, several(truth))
        numbers_of = classification(
            truth, probability, chosen, self._stage.classes, Resampling(0), apart=self._apart
        )
        by_class = {
            name: numbers["average_precision"].value for name, numbers in numbers_of.items()
        }
        score = by_class.pop(MEAN)
        points = {
            f"AP {name}": round(value, 4) for name, value in by_class.items() if np.isfinite(value)
        }
        return {"score": round(score, 5) if np.isfinite(score) else 0.0, **points}

    def probabilities(self, network: nn.Module, device: torch.device) -> NDArray[np.float64]:
        """Return (N, C) probabilities of the validation photos as the scorer shows them.

        Each photo is shown by its first window, unchanged.
        """
        return self._probable(self.logits(network, device))

    def logits(self, network: nn.Module, device: torch.device) -> NDArray[np.float64]:
        """Return (N, C) logits of the validation photos, from which `probabilities` are made."""
        return self._through(network, iter(self._squares), len(self.valid), device)

    def of_views(
        self, network: nn.Module, views: int, seed: int, most: int, device: torch.device
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return (M, C) probabilities and truth of several views of up to `most` training photos.

        The photos are spread evenly. A network may know its training photos by heart; their views
        are photos that it has not seen in quite this form.
        """
        indices = np.unique(
            np.linspace(0, len(self._views) - 1, min(most, len(self._views))).astype(int)
        )
        drawn = [
            (int(i), np.random.default_rng((seed, int(i), v, 2)))
            for i in indices
            for v in range(views)
        ]
        squares = (self._views.sample(index, rng)[0] for index, rng in drawn)
        truth = self._views.targets[[index for index, _ in drawn]] > 0
        return self._probable(self._through(network, squares, len(drawn), device)), truth

    def _probable(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        none = np.zeros(logits.shape[1])
        return Calibration(1.0, none, self._stage.outputs == "softmax").probabilities(logits)

    def _square(self, pixels: Pixels, window: Window) -> Pixels:
        part = window_of(pixels, window)
        if self._stage.fit == "crop":
            return centre_square(part, self._stage.size)
        return pad_to_square(
            part, self._stage.size, Normalisation(self._stage.mean, self._stage.std).fill
        )[0]

    @torch.inference_mode()
    def _through(
        self, network: nn.Module, squares: Iterator[Pixels], number: int, device: torch.device
    ) -> NDArray[np.float64]:
        outputs = []
        for start in range(0, number, _BATCH):
            batch = [next(squares) for _ in range(min(_BATCH, number - start))]
            logits = network(self.prepare(torch.from_numpy(np.stack(batch)).to(device))).float()
            outputs.append(logits.cpu().numpy().astype(np.float64))
        return np.concatenate(outputs) if outputs else np.zeros((0, len(self._stage.classes)))


def balanced(samples: PhotoSamples) -> Balanced:
    """Show all classes equally often, and photos of none as often as all classes together."""
    names = [photo.classes[0] if photo.classes else "" for photo in samples.photos]
    classes = len({name for name in names if name})
    shares: dict[Hashable, float] = {name: 1.0 for name in names}
    shares[""] = max(1.0, float(classes))
    return Balanced(samples, names, shares)


def class_weights(
    truth: Floats, softmax: bool, how: Literal["none", "balanced", "sqrt"]
) -> Floats | None:
    """Return (C,) weights for the loss, or None.

    softmax: weights of the photos of each class, 1 on average over all photos. Otherwise: weights
    of the positive term of each class, by which its photos count as much as all others together.
    `sqrt`: the roots of these.
    """
    if how == "none":
        return None
    number = np.maximum(truth.sum(axis=0), 1)
    balanced = (
        number.sum() / (len(number) * number)
        if softmax
        else np.maximum(len(truth) - number, 1) / number
    )
    return np.asarray(np.sqrt(balanced) if how == "sqrt" else balanced, np.float32)


def several(truth: NDArray[np.bool_]) -> bool:
    """Return whether photos may have several classes at once."""
    return bool((truth.sum(axis=1) > 1).any())


def choose(probability: NDArray[np.float64], threshold: float, several: bool) -> NDArray[np.bool_]:
    """Return (N, C), the classes that a classifier chooses.

    That is the top class if it reaches the threshold; with `several`, every class that does.
    """
    reached = probability >= threshold
    if several:
        return reached
    top = np.zeros_like(reached)
    top[np.arange(len(top)), probability.argmax(axis=1)] = True
    return reached & top


def best_threshold(probability: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the threshold of the top class with the highest mean recall.

    `none` counts as much as all classes together. Of several equally good ones, return the middle.
    """
    grid = np.arange(0.05, 0.96, 0.01)
    none = ~truth.any(axis=1)
    means = []
    for threshold in grid:
        chosen = choose(probability, float(threshold), several=False)
        recalls = [
            float(chosen[truth[:, c], c].mean()) for c in range(truth.shape[1]) if truth[:, c].any()
        ]
        means.append((float(np.mean(recalls)) + float((~chosen[none].any(axis=1)).mean())) / 2)
    return round(float(np.median(grid[np.array(means) >= max(means) - 1e-12])), 2)


@dataclass(frozen=True, slots=True)
class Threshold:
    """Hold a threshold, and whether it `holds` the shares that were asked for."""

    value: float
    holds: bool


def naming_threshold(
    probability: NDArray[np.float64],
    truth: NDArray[np.bool_],
    negatives: Sequence[str | None],
    asked: CalibrationSection,
) -> Threshold:
    """Return the lowest threshold of the top class at which both shares hold.

    If there is none, return the lowest of those at which enough negatives have nothing named and
    named classes are right most often.

    Args:
        probability: (N, C).
        truth: (N, C).
        negatives: The folder of negatives that each photo is from, or None.
        asked: The shares.
    """
    folders = {
        name: np.array([mine == name for mine in negatives])
        for name in dict.fromkeys(negatives)
        if name
    }
    best = Threshold(1.0, False)
    most_right = -1.0
    for step in range(1, 100):
        value = step / 100
        chosen = choose(probability, value, several=False)
        named = np.asarray(chosen.any(axis=1), np.bool_)
        kept = all(1 - float(named[mine].mean()) >= asked.none_kept for mine in folders.values())
        if not (kept and named.any()):
            continue
        right = float((chosen & truth).any(axis=1).sum() / named.sum())
        if right >= asked.named_right:
            return Threshold(value, True)
        if right > most_right:
            best, most_right = Threshold(value, False), right
    return best
