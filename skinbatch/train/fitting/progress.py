"""What a trainer says while it works, and to whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """Where a training is. steps: in all, None where minutes decide. loss: mean since the last one shown. best: of the
    score so far, None before the first evaluation. waited: share of the time of these steps spent waiting for data.
    left_s: None while unknown."""

    step: int
    steps: int | None
    epoch: int
    loss: float
    best: float | None
    waited: float
    left_s: float | None


class TrainingProgress(Protocol):
    """phase: what is being done now, a few words. note: something to be known. step: after a step, as often as the trainer
    likes. evaluated: a point of the curve, see TrainedStage."""

    def phase(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def step(self, now: TrainingStep) -> None: ...

    def evaluated(self, point: Mapping[str, float]) -> None: ...


class Silent:
    """Nobody listens: on workers that are not the first, and in tests."""

    def phase(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def step(self, now: TrainingStep) -> None:
        pass

    def evaluated(self, point: Mapping[str, float]) -> None:
        pass
