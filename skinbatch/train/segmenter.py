"""The starter segmenter: BiSeNet on CelebAMask-HQ faces, seen from near and far, whole and in part, in other scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from skinbatch.models.preprocess import Normalisation, pad_to_square
from skinbatch.models.segmenters.bisenet import BiSeNet
from skinbatch.train.augment import affine, blemish, clutter, degrade, recolour, warp, warp_labels
from skinbatch.train.loop import Budget, finish, fit, load_best

ARCH = "bisenet-light"
CLASSES = ("background", "skin", "nose")
SIZE = 256
HELD_BACK = 80
_KEPT = 384
_BATCH = 8
_PERSON = 3
"""Hair, neck, clothes: background to the network, but part of what is cut out when a face is put into another scene."""


Pixels = NDArray[np.uint8]


class Faces:
    """Photos and label maps of CelebAMask-HQ (background 0, skin 1, nose 2, the rest of the person 3 in `train`, 0 in
    `valid`); the last 80 by id are for validation."""

    def __init__(self, folder: Path) -> None:
        ids = sorted(path.stem for path in (folder / "images").glob("*.jpg"))
        self.train = [self._read(folder, name, _KEPT) for name in ids[:-HELD_BACK]]
        kept = [self._read(folder, name, 512) for name in ids[-HELD_BACK:]]
        self.valid = [(photo, _truth(labels)) for photo, labels in kept]

    @staticmethod
    def _read(folder: Path, name: str, size: int) -> tuple[Pixels, Pixels]:
        photo = np.asarray(Image.open(folder / "images" / f"{name}.jpg").convert("RGB"))
        ids = np.asarray(Image.open(folder / "masks" / f"{name}.png"))
        labels = np.minimum(ids, _PERSON).astype(np.uint8)
        if photo.shape[0] == size:
            return photo, labels
        shrunk = cv2.resize(photo, (size, size), interpolation=cv2.INTER_AREA)
        return np.asarray(shrunk, np.uint8), np.asarray(
            cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST), np.uint8
        )


class SegmenterTask:
    """Cross-entropy per pixel, with BiSeNet's two auxiliary losses; scored by the mean Dice of skin and nose."""

    def __init__(self, faces: Faces) -> None:
        self._faces = faces
        self._normalisation = Normalisation()

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        drawn = [self._view(rng) for _ in range(_BATCH)]
        photos, labels = zip(*drawn, strict=True)
        return self._normalisation.tensor(photos), torch.from_numpy(np.stack(labels).astype(np.int64))

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        main, at16, at32 = network(x)
        return F.cross_entropy(main, y) + 0.4 * (F.cross_entropy(at16, y) + F.cross_entropy(at32, y))

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        dice = self.dice(network)
        return {
            "score": round((dice["skin"] + dice["nose"]) / 2, 5),
            **{f"dice_{k}": round(v, 4) for k, v in dice.items()},
        }

    def dice(self, network: nn.Module) -> dict[str, float]:
        """Dice of each class over all validation pixels, at the network's resolution."""
        overlap, total = np.zeros(len(CLASSES)), np.zeros(len(CLASSES))
        for start in range(0, len(self._faces.valid), 20):
            pairs = self._faces.valid[start : start + 20]
            x = self._normalisation.tensor([pad_to_square(p, SIZE, self._normalisation.fill)[0] for p, _ in pairs])
            found = network(x).argmax(1).numpy()
            truth = np.stack([cv2.resize(t, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST) for _, t in pairs])
            for c in range(len(CLASSES)):
                overlap[c] += np.sum((found == c) & (truth == c))
                total[c] += np.sum(found == c) + np.sum(truth == c)
        return {name: float(2 * o / t) for name, o, t in zip(CLASSES, overlap, total, strict=True)}

    def _view(self, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """One face near or far, or one farther away in front of something else."""
        if rng.random() < 0.55:
            square, labels = self._face(rng, (0.5, 3.2), 0.35)
        else:
            square, labels = self._scene(rng)
        truth = _truth(labels)
        if rng.random() < 0.5:
            square = blemish(square, truth > 0, rng, 40)
        return degrade(recolour(square, rng), rng), truth

    def _face(self, rng: np.random.Generator, zoom: tuple[float, float], shift: float) -> tuple[Pixels, Pixels]:
        photo, labels = self._faces.train[rng.integers(len(self._faces.train))]
        matrix = affine(rng, (photo.shape[0], photo.shape[1]), SIZE, zoom=zoom, turn=25, shift=shift)
        return warp(photo, matrix, SIZE, self._normalisation.fill), warp_labels(labels, matrix, SIZE)

    def _scene(self, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """A person cut out and put before colours without meaning, or before a part of another photo without skin."""
        front, labels = self._face(rng, (0.25, 0.9), 0.3)
        back, behind = self._face(rng, (1.5, 5.0), 0.9)
        back = recolour(back, rng)
        if rng.random() < 0.5 or (_truth(behind) > 0).any():
            back = clutter(rng, SIZE)
        person = labels > 0
        return np.where(person[..., None], front, back), labels


def _truth(labels: Pixels) -> Pixels:
    return np.where(labels == _PERSON, 0, labels).astype(np.uint8)


def train(data: Path, work: Path, minutes: float) -> None:
    """Train on `data/celebamask` for so many minutes; leaves `segmenter.safetensors` and `segmenter.json` in `work`.

    Carries on where it was stopped.
    """
    faces = Faces(data / "celebamask")
    task = SegmenterTask(faces)
    torch.manual_seed(0)
    network = BiSeNet(ARCH, len(CLASSES))
    run = fit(network, task, Budget(minutes, every=150), work)
    best = load_best(network, work)
    with torch.inference_mode():
        metrics = {f"dice_{name}": round(value, 4) for name, value in task.dice(best).items()}
    finish(
        best,
        work,
        "segmenter",
        run
        | {
            "arch": ARCH,
            "classes": CLASSES,
            "size": SIZE,
            "metrics": metrics,
            "data": {"CelebAMask-HQ subset": {"train": len(faces.train), "valid": len(faces.valid)}},
            "parameters": sum(p.numel() for p in best.parameters()),
        },
    )
