"""What an evaluation is asked for, and the photos that it judges."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skinbatch.annotations.photos import AnnotatedPhoto
from skinbatch.annotations.split import how_grouped
from skinbatch.errors import UsageError
from skinbatch.evaluate.scored import spelled
from skinbatch.metrics.bootstrap import Resampling

THRESHOLDS = (0.25, 0.5, 0.75)
"""Scores at which paper 003 counts."""
EVERY = "*"


@dataclass(frozen=True, slots=True)
class Request:
    """truth: file or folder of annotations. format: of the readers, None: told by content. thresholds: scores at which lesions
    are counted, besides the scoring's own. names: a class as people wrote it -> as the model has it, "" for none of its
    classes; `*` stands for every other. apart: classes of photos that the means leave out, such as confounded ones. group: of
    photos that are resampled as one: a regular expression over the photo's name whose first group it is, or a column of a
    .csv truth; None: what the truth says by itself."""

    truth: Path
    format: str | None = None
    scoring: str | None = None
    thresholds: tuple[float, ...] = THRESHOLDS
    resampling: Resampling = field(default_factory=Resampling)
    names: Mapping[str, str] = field(default_factory=dict)
    apart: tuple[str, ...] = ()
    group: str | None = None

    def __post_init__(self) -> None:
        if wrong := [t for t in self.thresholds if not 0 <= t <= 1]:
            raise UsageError(f"--thresholds: {wrong[0]} is no score; scores are from 0 to 1")
        try:
            how_grouped(self.group)
        except re.error as e:
            raise UsageError(f"--group {self.group}: no regular expression: {e}") from None

    def renamed(self, name: str) -> str | None:
        """A class of the truth as columns spell it; None if it is mapped to none."""
        wanted = self.names.get(name, self.names.get(EVERY, name))
        return spelled(wanted) if wanted else None

    def unused(self, names: Sequence[str]) -> list[str]:
        """What is mapped but is no class of the truth: a slip of the pen. names: of the truth's classes."""
        return [name for name in self.names if name != EVERY and name not in names]


@dataclass(frozen=True, slots=True)
class Judged:
    """Photos that have truth and an `ok` row, P of them. rows: (P,) places in the images table. groups: (P,) numbers of the
    patients, or whatever photos are grouped by, each photo whose group nobody knows having one of its own; None where no group
    is known."""

    photos: tuple[AnnotatedPhoto, ...]
    image_ids: tuple[str, ...]
    rows: NDArray[np.int64]
    groups: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.photos)

    def groups_of(self, places: NDArray[np.int64]) -> NDArray[np.int64] | None:
        return None if self.groups is None else self.groups[places]
