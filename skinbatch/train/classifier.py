"""The starter classifier: six skin diseases, with healthy faces and faces with acne as photos of none of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from skinbatch.models.classifiers.classifier import ClassifierNetwork, ClassifierSpec
from skinbatch.train.augment import affine, degrade, recolour, warp
from skinbatch.train.loop import SEED, Budget, finish, fit, load_best

CLASSES = (
    "seborrheic_keratosis",
    "actinic_keratosis",
    "rosacea",
    "lupus_erythematosus",
    "basal_cell_carcinoma",
    "squamous_cell_carcinoma",
)
CONFOUNDED = "seborrheic_keratosis"
FOLDERS = {
    "seborrheic_keratosis_like": 0,
    "actinic_keratosis": 1,
    "rosacea": 2,
    "cutaneous_lupus_erythematosus": 3,
    "discoid_lupus_erythematosus": 3,
    "basal_cell_carcinoma": 4,
    "squamous_cell_carcinoma": 5,
    "acne_vulgaris": None,
}
SPEC = ClassifierSpec("regnety_002", CLASSES, size=160)
VALID_PART = 0.2
_LONG_SIDE = 288
_BATCH = 32
_ACNE_FACES = 300

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Photo:
    """views: parts of the photo without watermark, the first one is what validation sees. label: index into CLASSES,
    None for none of them. zoom: how near a training view may come."""

    views: tuple[Pixels, ...]
    label: int | None
    zoom: float


@dataclass(frozen=True, slots=True)
class Photos:
    """Split by the order of file names, because neighbours may show one patient; counts are by source folder."""

    train: list[Photo]
    valid: list[Photo]
    counts: dict[str, dict[str, int]]


def read_photos(data: Path) -> Photos:
    """Every source, all at one resolution, so that the size of a file does not tell its class."""
    photos = Photos([], [], {})
    for folder, label in FOLDERS.items():
        paths = sorted((data / "derm" / folder).iterdir(), key=_natural)
        _add(photos, folder, [Photo(_without_watermark(_read(path)), label, 1.6) for path in paths])
    faces = sorted((data / "celebamask" / "images").glob("*.jpg"))
    _add(photos, "celebamask", [Photo((_face(data, path),), None, 2.2) for path in faces])
    acne = sorted((data / "acne04" / "train").glob("*.jpg"))
    chosen = [acne[i] for i in np.linspace(0, len(acne) - 1, _ACNE_FACES).astype(int)]
    _add(photos, "acne04", [Photo((_read(path),), None, 2.0) for path in chosen])
    return photos


class ClassifierTask:
    """Binary cross-entropy a class, weighted against its rarity; scored by the mean average precision of the five
    classes that come from one source."""

    def __init__(self, photos: Photos) -> None:
        self.photos = photos
        labels = np.array([-1 if p.label is None else p.label for p in photos.train])
        groups = {label: np.flatnonzero(labels == label) for label in (-1, *range(len(CLASSES)))}
        # Diseases are drawn by the square root of their numbers, and make up as many photos as no disease does.
        weights = np.array([0.0 if g < 0 else np.sqrt(len(ids)) for g, ids in groups.items()])
        weights[0] = weights.sum()
        self._groups = list(groups.values())
        self._odds = weights / weights.sum()
        shares = torch.tensor(self._odds[1:], dtype=torch.float32)
        self._positive_weight = ((1 - shares) / shares).sqrt()

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        groups = rng.choice(len(self._groups), _BATCH, p=self._odds)
        drawn = [self.photos.train[rng.choice(self._groups[g])] for g in groups]
        squares = [training_view(photo, rng) for photo in drawn]
        return SPEC.normalisation.tensor(squares), torch.from_numpy(targets(drawn))

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        smooth = y * 0.95 + 0.01
        return F.binary_cross_entropy_with_logits(network(x), smooth, pos_weight=self._positive_weight)

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        probs = predict(network, [SPEC.square(photo.views[0]) for photo in self.photos.valid])
        precisions = average_precisions(probs, targets(self.photos.valid))
        apart = [ap for name, ap in precisions.items() if name != CONFOUNDED]
        return {"score": round(float(np.mean(apart)), 5), **{f"ap_{k}": round(v, 3) for k, v in precisions.items()}}


def training_view(photo: Photo, rng: np.random.Generator) -> Pixels:
    """Another light, another camera, another part of the photo: (size, size, 3)."""
    view = photo.views[rng.integers(len(photo.views))]
    height, width = view.shape[:2]
    filled = max(height, width) / min(height, width)
    matrix = affine(
        rng, (height, width), SPEC.size, zoom=(0.85 * filled, photo.zoom * filled), turn=30, shift=0.15 * photo.zoom
    )
    square = warp(view, matrix, SPEC.size, SPEC.normalisation.fill)
    if rng.random() < 0.3:
        square = np.ascontiguousarray(square[::-1])
    return degrade(recolour(square, rng), rng)


def targets(photos: Sequence[Photo]) -> NDArray[np.float32]:
    """(N, classes): 1 for a photo's class; a photo of none has zeros only."""
    truth = np.zeros((len(photos), len(CLASSES)), np.float32)
    for row, photo in enumerate(photos):
        if photo.label is not None:
            truth[row, photo.label] = 1
    return truth


@torch.inference_mode()
def predict(network: nn.Module, squares: Sequence[Pixels]) -> NDArray[np.float32]:
    """(N, classes) probabilities of (size, size, 3) squares."""
    found = [network(SPEC.normalisation.tensor(squares[i : i + 64])).sigmoid() for i in range(0, len(squares), 64)]
    return np.asarray(torch.cat(found).numpy(), np.float32)


def average_precisions(probs: NDArray[np.float32], truth: NDArray[np.float32]) -> dict[str, float]:
    """Mean of the precision at every photo of the class, ranked among all photos."""
    result = {}
    for c, name in enumerate(CLASSES):
        hits = truth[np.argsort(-probs[:, c], kind="stable"), c]
        result[name] = float(np.mean((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits > 0]))
    return result


def recalls(probs: NDArray[np.float32], truth: NDArray[np.float32], threshold: float) -> dict[str, float]:
    """Share of each class's photos whose top class it is; `none`: share of the others without a top class."""
    top = np.where(probs.max(1) >= threshold, probs.argmax(1), -1)
    result = {name: float(np.mean(top[truth[:, c] > 0] == c)) for c, name in enumerate(CLASSES)}
    return result | {"none": float(np.mean(top[truth.sum(1) == 0] == -1))}


def best_threshold(probs: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """The threshold with the highest mean recall, `none` counting as much as all classes together."""
    grid = np.arange(0.05, 0.96, 0.01)
    means = []
    for threshold in grid:
        found = recalls(probs, truth, float(threshold))
        none = found.pop("none")
        means.append((float(np.mean(list(found.values()))) + none) / 2)
    return round(float(np.median(grid[np.array(means) == max(means)])), 2)


def train(data: Path, work: Path, minutes: float) -> None:
    """Train on `data/derm` and faces for so many minutes; leaves `classifier.safetensors` and `classifier.json`.

    Carries on where it was stopped.
    """
    photos = read_photos(data)
    task = ClassifierTask(photos)
    torch.manual_seed(SEED)
    network = ClassifierNetwork(SPEC)
    run = fit(network, task, Budget(minutes, every=150, lr=1e-3, weight_decay=5e-2), work)
    best = load_best(network, work)
    rng = np.random.default_rng(SEED)
    seen = [photo for photo in photos.train for _ in range(2)]
    threshold = best_threshold(predict(best, [training_view(photo, rng) for photo in seen]), targets(seen))
    probs, truth = predict(best, [SPEC.square(photo.views[0]) for photo in photos.valid]), targets(photos.valid)
    found = recalls(probs, truth, threshold)
    metrics = {
        "average_precision": _rounded(average_precisions(probs, truth)),
        "average_precision_of_guessing": _rounded(dict(zip(CLASSES, truth.mean(0).tolist(), strict=True))),
        "recall": _rounded(found),
        "photos": dict(zip(CLASSES, truth.sum(0).astype(int).tolist(), strict=True))
        | {"none": int((truth.sum(1) == 0).sum())},
    }
    result = {
        "arch": "timm",
        "backbone": SPEC.backbone,
        "classes": CLASSES,
        "size": SPEC.size,
        "fit": SPEC.fit,
        "threshold": threshold,
        "metrics": metrics,
        "data": photos.counts,
        "parameters": sum(p.numel() for p in best.parameters()),
    }
    finish(best, work, "classifier", run | result)


def _add(photos: Photos, source: str, read: list[Photo]) -> None:
    cut = len(read) - round(VALID_PART * len(read))
    photos.train.extend(read[:cut])
    photos.valid.extend(read[cut:])
    photos.counts[source] = {"train": cut, "valid": len(read) - cut}


def _natural(path: Path) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def _read(path: Path) -> Pixels:
    return _shrunk(np.asarray(Image.open(path).convert("RGB")))


def _shrunk(photo: Pixels) -> Pixels:
    scale = _LONG_SIDE / max(photo.shape[:2])
    size = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8)


def _without_watermark(photo: Pixels) -> tuple[Pixels, Pixels]:
    """DermNet's marks are at the lower left: right and above of them, and the whole width above them. All classes are
    cut alike, also the photos that carry no mark."""
    height, width = photo.shape[:2]
    return photo[: int(0.78 * height), int(0.27 * width) :], photo[: int(0.66 * height)]


def _face(data: Path, path: Path) -> Pixels:
    """What the scorer would cut out: the box around skin and nose."""
    photo = np.asarray(Image.open(path).convert("RGB"))
    ids = np.asarray(Image.open(data / "celebamask" / "masks" / f"{path.stem}.png"))
    ys, xs = np.nonzero((ids == 1) | (ids == 2))
    return _shrunk(photo[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}
