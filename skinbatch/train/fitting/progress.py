"""Report the progress of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """Describe where a training is.

    steps: total number, None if minutes decide. loss: mean since the last report. best: best score
    so far, None before the first evaluation. waited: share of the time of these steps spent waiting
    for data. left_s: None while unknown.
    """

    step: int
    steps: int | None
    epoch: int
    loss: float
    best: float | None
    waited: float
    left_s: float | None


class TrainingProgress(Protocol):
    """Receive progress.

    phase: the current activity in a few words. note: something to know. step: called after a step,
    as often as the trainer likes. evaluated: a point of the curve, see TrainedStage.
    """

    def phase(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def step(self, now: TrainingStep) -> None: ...

    def evaluated(self, point: Mapping[str, float]) -> None: ...


class SilentProgress:
    """Ignore all progress: on workers that are not the first, and in tests."""

    def phase(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def step(self, now: TrainingStep) -> None:
        pass

    def evaluated(self, point: Mapping[str, float]) -> None:
        pass
