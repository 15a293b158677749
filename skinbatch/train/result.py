"""What the training of one stage leaves behind: the stage as a pack describes it, its weights, and what is to be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skinbatch.models.stages import AnyStage


@dataclass(frozen=True, slots=True)
class Metric:
    """A number on held-back photos. low, high: its 95 % bootstrap interval, None where there is none to give. photos: how
    many it was computed on."""

    value: float
    low: float | None = None
    high: float | None = None
    photos: int | None = None


@dataclass(frozen=True, slots=True)
class TrainedStage:
    """One trained stage, ready for a pack.

    name: `segmenter`, `detector` or `classifier`. stage: for pack.toml, with the sha256 of `weights`, a safetensors file
    in fp16. metrics: by name, on all validation photos, of these very weights. curve: one point an evaluation (`epoch`,
    `step`, `minutes`, `loss`, `waiting` and the metrics watched). data: counts (`train`, `valid`, `negatives`,
    `train_boxes` …). stopped: why the training ended, in words. waiting: share of step time spent waiting for data.
    recipe: every number that training used, the defaults included.
    """

    name: str
    stage: AnyStage
    weights: Path
    metrics: Mapping[str, Metric]
    curve: tuple[Mapping[str, Any], ...]
    data: Mapping[str, int]
    seconds: float
    steps: int
    hardware: str
    stopped: str
    waiting: float
    seed: int
    recipe: Mapping[str, Any] = field(default_factory=dict)
