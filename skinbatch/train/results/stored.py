"""Store a trained network as a stage: its weights on disk, its fields, its metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from skinbatch.metrics.bootstrap import Estimate
from skinbatch.models.weights import save_state
from skinbatch.train.fitting.recipe_parts import Trained
from skinbatch.train.recipe import FOLLOWS, Recipe
from skinbatch.train.results.result import Metric, TrainedStage


def save_stage(
    recipe: Recipe,
    work: Path,
    trained: Trained,
    metrics: Iterable[Metric],
    *,
    fields: Mapping[str, Any] | None = None,
    left_out: tuple[str, ...] = (),
    notes: Iterable[str] = (),
    picture: Path | None = None,
) -> TrainedStage:
    """Write `work/<stage>.safetensors`, fp16, and return the stage.

    fields: found in training; they take precedence over those of the recipe. left_out: beginnings
    of the names of layers that only training needs. picture: the reliability of its probabilities.
    """
    path = work / f"{recipe.stage}.safetensors"
    state = trained.network.state_dict()
    if not dist.is_initialized() or dist.get_rank() == 0:
        save_state(
            {name: value for name, value in state.items() if not name.startswith(left_out)}, path
        )
    own_fields = recipe.model.stage.model_dump(mode="json", exclude_none=True, exclude=set(FOLLOWS))
    return TrainedStage(
        stage=recipe.stage,
        fields=own_fields | dict(fields or {}),
        weights=path,
        parameters=sum(
            p.numel()
            for name, p in trained.network.named_parameters()
            if not name.startswith(left_out)
        ),
        metrics=tuple(metrics),
        curve=trained.last.curve,
        earlier=trained.earlier,
        data=trained.counts,
        steps=trained.steps,
        seconds=trained.seconds,
        hardware=trained.last.hardware,
        stopped=trained.last.stopped,
        notes=(*trained.notes, *notes),
        reliability=picture,
    )


def metrics_of(
    estimates: Mapping[str, Mapping[str, Estimate]], names: Iterable[str], photos: int
) -> list[Metric]:
    """Return the named numbers of every class, including `mean`; undefined ones are left out."""
    return [
        Metric(name, round(e.value, 5), of, _end(e.low), _end(e.high), photos)
        for name in names
        for of, numbers in estimates.items()
        if math.isfinite((e := numbers[name]).value)
    ]


def _end(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None
