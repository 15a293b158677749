"""Produce the stream of training samples.

It is the same for the same seed, whichever process makes them and wherever it starts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from skinbatch.errors import UsageError
from skinbatch.train.photos.processes import batches_of, quiet


class Samples(Protocol):
    """Give out training photos.

    sample: a view of one of them, (S, S, 3) uint8 RGB, and what is to be learned of it; drawn by
    `rng` alone, so that it is the same in every process.
    """

    def __len__(self) -> int: ...

    def sample(
        self, index: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.generic]]: ...


class Balanced:
    """Draw samples from groups in given shares, whatever the groups' sizes. Implements Samples."""

    def __init__(
        self, samples: Samples, groups: Sequence[Hashable], shares: Mapping[Hashable, float]
    ) -> None:
        """Create the samples.

        A group is drawn by its share, then one of its photos, all equally likely.

        Args:
            samples: to draw from.
            groups: the group of each of them.
            shares: how often each group is drawn; they may have any sum.
        """
        self._samples = samples
        self._groups = list(dict.fromkeys(groups))
        self._members = [
            [n for n, group in enumerate(groups) if group == name] for name in self._groups
        ]
        weights = np.array([shares[name] for name in self._groups], np.float64)
        self._shares = weights / weights.sum()

    def __len__(self) -> int:
        return len(self._samples)

    def sample(
        self, index: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.generic]]:
        """Return a view of a photo that `rng` draws. index: ignored."""
        members = self._members[int(rng.choice(len(self._members), p=self._shares))]
        return self._samples.sample(members[int(rng.integers(len(members)))], rng)


@dataclass(frozen=True, slots=True)
class Stream:
    """Divide the stream among workers.

    batch: samples a step, over all `world` workers; this one is `rank`.
    """

    samples: Samples
    batch: int
    seed: int
    rank: int = 0
    world: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of whole batches; the photos left over differ from epoch to epoch."""
        return max(1, len(self.samples) // self.batch)

    def loader(
        self, first_step: int, workers: int, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Return batches from `first_step` on, without end: (N, S, S, 3) uint8 and the targets.

        They are made ahead by this many processes. Raises UsageError if the batch cannot be divided
        evenly.
        """
        if self.batch % self.world:
            raise UsageError(
                f"setting `schedule.batch`: {self.batch} photos cannot be divided among {self.world} workers; give a "
                f"multiple of {self.world}"
            )
        loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            _Views(self),
            batch_sampler=_Steps(self, first_step),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            pin_memory=device.type == "cuda",
            worker_init_fn=quiet if workers else None,
        )
        return batches_of(loader)

    def indices(self, step: int) -> list[tuple[int, int]]:
        """Yield (position in the stream, photo) of this worker's part of a step."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.samples))
        places = np.arange(within * self.batch, (within + 1) * self.batch)[self.rank :: self.world]
        start = epoch * self.steps_per_epoch * self.batch
        return [(int(start + place), int(order[place % len(order)])) for place in places]


class _Steps(Sampler[list[tuple[int, int]]]):
    def __init__(self, stream: Stream, first: int) -> None:
        self.stream, self.first = stream, first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step = self.first
        while True:
            yield self.stream.indices(step)
            step += 1


class _Views(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, Tensor]:
        position, index = place
        # The last number keeps these apart from the generators of the order.
        photo, target = self.stream.samples.sample(
            index, np.random.default_rng((self.stream.seed, position, 1))
        )
        return torch.from_numpy(np.ascontiguousarray(photo)), torch.from_numpy(
            np.ascontiguousarray(target)
        )
