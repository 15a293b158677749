"""Describe what an evaluation is asked for, and the photos that it judges."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.annotations.grouping import Grouping
from skinbatch.errors import UsageError
from skinbatch.evaluate.scoring_tables import spelled
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.tables.names import composed

# Scores at which paper 003 counts.
THRESHOLDS = (0.25, 0.5, 0.75)
EVERY = "*"


@dataclass(frozen=True)
class EvaluationRequest:
    """Describe an evaluation.

    truth: file or folder of annotations. format: name of a reader; None: detected from the content.
    photos: folder of the truth's photos; None: they are beside it. grading: made by `skinbatch
    regrade`; None: that of the scoring's first run. thresholds: scores at which lesions are
    counted, besides the grading's own. names: class in the truth -> class of the model, "" for none
    of its classes; `*` stands for every other class. apart: classes that the means leave out, such
    as confounded ones. group: photos that are resampled together, as
    `Grouping.parse` takes it: a regular expression over the photo's name, a column of a .csv truth
    or of the tables, or `look`; None: the truth's own groups. trained_on: list of the photos that the
    model was trained on; numbers are then also given by whether it has seen the person. only: judge
    no other photos than these, by image_id; None: all. sliced: also measure by skin tone and
    severity.
    """

    truth: Path
    format: str | None = None
    photos: Path | None = None
    scoring: str | None = None
    grading: str | None = None
    thresholds: tuple[float, ...] = THRESHOLDS
    resampling: Resampling = field(default_factory=Resampling)
    names: Mapping[str, str] = field(default_factory=dict)
    apart: tuple[str, ...] = ()
    group: str | None = None
    trained_on: Path | None = None
    only: frozenset[str] | None = None
    sliced: bool = True

    def __post_init__(self) -> None:
        if wrong := [t for t in self.thresholds if not 0 <= t <= 1]:
            raise UsageError(f"--thresholds: {wrong[0]} is not a score; scores are from 0 to 1")
        try:
            _ = self.grouping
        except re.error as e:
            raise UsageError(f"--group {self.group}: not a regular expression: {e}") from None

    @cached_property
    def grouping(self) -> Grouping | None:
        """Return how groups are known; None without `group`."""
        return None if self.group is None else Grouping.parse(self.group)

    @cached_property
    def _mapping(self) -> dict[str, str]:
        """Return `names` in the Unicode form of a truth's names."""
        return {composed(name): meant for name, meant in self.names.items()}

    def renamed(self, name: str) -> str | None:
        """Return a class of the truth as columns spell it, or None if it is mapped to none."""
        meaning = self._mapping.get(name, self._mapping.get(EVERY, name))
        return spelled(meaning) if meaning else None

    def renamed_part(self, name: str) -> str | None:
        """Return a class of a mask as columns spell it. `*` stands for no part of a face."""
        meaning = self._mapping.get(name, name)
        return spelled(meaning) if meaning else None

    def unused(self, names: Sequence[str]) -> list[str]:
        """Return mapped names that are no class of the truth, most likely typing errors.

        names: classes of the truth.
        """
        return [name for name in self.names if name != EVERY and composed(name) not in names]


@dataclass(frozen=True, slots=True)
class Judged:
    """Hold the P photos that have a truth and an `ok` row.

    rows: (P,) indices in the images table. groups: (P,) number of the patient or other group; a
    photo whose group is unknown has one of its own. None if no group is known.
    """

    photos: tuple[AnnotatedPhoto, ...]
    image_ids: tuple[str, ...]
    rows: NDArray[np.int64]
    groups: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.photos)

    def groups_of(self, places: NDArray[np.int64]) -> NDArray[np.int64] | None:
        return None if self.groups is None else self.groups[places]
