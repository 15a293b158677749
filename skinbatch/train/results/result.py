"""Describe what a trainer hands over: enough to write the stage into a pack, and its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A mapping for each evaluation, see TrainedStage.
Curve = Sequence[Mapping[str, float]]


def best_of(curve: Curve) -> int:
    """Return the evaluation whose weights were kept; of equal scores, the last one."""
    return max(range(len(curve)), key=lambda n: (curve[n]["score"], n))


@dataclass(frozen=True, slots=True)
class Metric:
    """Hold one number about the validation photos.

    name: `AP50`, `Dice`, `recall` and so on. of: the class, or "" for all of them. low, high: its
    95 % bootstrap interval, None if there is none. photos: how many it is based on.
    """

    name: str
    value: float
    of: str = ""
    low: float | None = None
    high: float | None = None
    photos: int | None = None


@dataclass(frozen=True, slots=True)
class DataCount:
    """Hold the number of photos of one source.

    source: as the recipe names it. part: `train`, `valid` or `negatives`, with the name of an
    earlier training before it (`body train`). things: class -> boxes of it, or photos. left_out:
    reason -> how many.
    """

    source: str
    part: str
    photos: int
    things: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainedStage:
    """Hold a trained stage.

    Attributes:
        stage: `segmenter`, `detector` or `classifier`.
        fields: of SegmenterStage, DetectorStage or ClassifierStage, without sha256, config_sha256,
            parameters, source and licence. They come from the recipe and from training (threshold,
            fitted anchors).
        weights: a safetensors file, fp16 (models.weights.save_weights).
        parameters: of the network as it is packed.
        curve: a mapping for each evaluation with `step` first, then `epoch`, `minutes`, `loss`,
            `score` (by which the best weights were chosen), `waited` (share of the step time spent
            waiting for data) and any other number. It is drawn and printed.
        steps, seconds: over all resumptions.
        hardware: in words.
        stopped: why it ended, in words.
        notes: sentences for the card.
        config: `detector.json` of arch `mmdet`, otherwise None.
        earlier: name and curve of each training before the last ([[transfer]]).
        reliability: a PNG that compares calibrated probabilities with the truth; None if they are
            not calibrated.
    """

    stage: str
    fields: Mapping[str, Any]
    weights: Path
    parameters: int
    metrics: tuple[Metric, ...]
    curve: tuple[Mapping[str, float], ...]
    data: tuple[DataCount, ...]
    steps: int
    seconds: float
    hardware: str
    stopped: str
    notes: tuple[str, ...] = ()
    config: Path | None = None
    earlier: tuple[tuple[str, Curve], ...] = ()
    reliability: Path | None = None
