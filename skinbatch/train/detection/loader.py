"""Make batches of training inputs in processes of their own, so that the model need not wait.

The content of a batch depends only on the seed and on its number, never on how many processes make
it or on what was trained before. A training that was killed resumes with the batches that it would
have had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from skinbatch.train.detection.clones import Cloner
from skinbatch.train.detection.crops import Changes, Sample, draw
from skinbatch.train.detection.scaled_photos import BoxedPhoto, ScaledPhotos
from skinbatch.train.photos.processes import quiet

# Place in the whole training, index of the photo.
Key = tuple[int, int]
MOSAIC = 4
# Number of batches that each process makes ahead.
AHEAD = 4


class Batch(TypedDict):
    """Hold a batch.

    Attributes:
        pixels: (N, 3, H, W) uint8, RGB, channels last in memory.
        boxes: (M, 4) float32 of all photos.
        labels: (M,) int64.
        counts: (N,) int64, boxes of each photo.
    """

    pixels: Tensor
    boxes: Tensor
    labels: Tensor
    counts: Tensor


class TrainingInputs(Dataset[Sample]):
    """Draw crops of annotated photos, each as often as it is repeated, then of clear photos.

    cloner: adds lesions to both.
    """

    def __init__(
        self,
        photos: ScaledPhotos,
        clear: ScaledPhotos,
        changes: Changes,
        seed: int,
        cloner: Cloner | None = None,
    ) -> None:
        self._photos, self._clear, self._changes, self._seed = photos, clear, changes, seed
        self._cloner = cloner
        self._shown = [n for n, photo in enumerate(photos.photos) for _ in range(photo.repeat)]

    @property
    def annotated(self) -> int:
        """Return the number of inputs an epoch that show annotated photos."""
        return len(self._shown)

    def source(self, key: Key) -> str:
        """Return the source of the photo that an input shows."""
        return self._photo(key, self._rng(key))[1].source

    def fill(self, memory: int) -> None:
        """Keep photos decoded, as far as `memory` bytes reach; see ScaledPhotos."""
        self._clear.fill(self._photos.fill(memory))

    def __getitem__(self, key: Key) -> Sample:
        rng = self._rng(key)
        n, _ = self._photo(key, rng)
        cloner = self._cloner
        if key[1] >= self.annotated:
            return draw(self._clear[n], (), rng, self._changes, cloner.on_clear if cloner else None)
        others: list[Sample] = []
        if rng.random() < self._changes.augment.mosaic:
            others = [self._photos[int(rng.integers(len(self._photos)))] for _ in range(MOSAIC - 1)]
        return draw(
            self._photos[n], others, rng, self._changes, cloner.on_annotated if cloner else None
        )

    def _rng(self, key: Key) -> np.random.Generator:
        # The last number keeps these apart from the generators of the order.
        return np.random.default_rng((self._seed, key[0], 1))

    def _photo(self, key: Key, rng: np.random.Generator) -> tuple[int, BoxedPhoto]:
        """Return the photo of an input and its place among the clear or the annotated ones."""
        clear = key[1] >= self.annotated
        n = int(rng.integers(len(self._clear))) if clear else self._shown[key[1]]
        return n, (self._clear if clear else self._photos).photos[n]


class Order(Sampler[list[Key]]):
    """Yield batches without end for one of `world` workers, beginning with step `first`.

    Each epoch shows every photo once, in an order of its own. Its last batch is filled from its
    beginning. `first` may be set later.

    Args:
        clear: inputs an epoch with nothing to find, beyond the photos.
        batch: inputs a step, of one worker.
    """

    def __init__(
        self,
        photos: int,
        clear: int,
        batch: int,
        seed: int,
        *,
        first: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._inputs, self.batch, self._seed = photos + clear, batch, seed
        self.first, self._rank, self._world = first, rank, world

    def __len__(self) -> int:
        """Return the number of steps of an epoch."""
        return -(-self._inputs // (self.batch * self._world))

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, step = divmod(self.first, len(self))
        a_step = self.batch * self._world
        while True:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._inputs)
            order = np.resize(order, len(self) * a_step)
            for start in range(step * a_step + self._rank * self.batch, len(order), a_step):
                before = epoch * len(order)
                yield [(before + n, int(order[n])) for n in range(start, start + self.batch)]
            epoch, step = epoch + 1, 0


def collate(samples: Sequence[Sample]) -> Batch:
    """Join samples into few tensors, as each tensor is passed between processes by itself."""
    pixels = np.stack([sample.pixels for sample in samples])
    return {
        "pixels": torch.from_numpy(pixels).permute(0, 3, 1, 2),
        "boxes": torch.from_numpy(np.concatenate([sample.boxes for sample in samples])),
        "labels": torch.from_numpy(np.concatenate([sample.labels for sample in samples])),
        "counts": torch.tensor([len(sample.boxes) for sample in samples]),
    }


def loader(
    inputs: TrainingInputs, order: Order, processes: int, *, pinned: bool
) -> DataLoader[Sample]:
    """Return a loader.

    processes: 0 makes batches in the calling process. pinned: in memory that a GPU copies from
    while it computes.
    """
    return DataLoader(
        inputs,
        batch_sampler=order,
        num_workers=processes,
        collate_fn=collate,
        pin_memory=pinned,
        prefetch_factor=AHEAD if processes else None,
        worker_init_fn=quiet if processes else None,
    )
