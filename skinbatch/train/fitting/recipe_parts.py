"""Train a network through all trainings of a recipe: earlier ones ([[transfer]]), then its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from skinbatch.models.stages import AnyStage
from skinbatch.train.fitting.device import choose_device
from skinbatch.train.fitting.loop import FitPlan, Fitted, Task, fit
from skinbatch.train.fitting.progress import TrainingProgress
from skinbatch.train.fitting.start import freeze_backbone, read_start, start_from
from skinbatch.train.photos.gather import GatheredPhotos, gather
from skinbatch.train.recipe import Recipe
from skinbatch.train.recipe_data import DataSection
from skinbatch.train.recipe_sections import ScheduleSection
from skinbatch.train.results.result import Curve, DataCount


@dataclass(frozen=True, slots=True)
class RecipePart:
    """Describe one training of a recipe.

    name: "" for the last. stage: with this training's classes and size.
    """

    name: str
    stage: AnyStage
    data: DataSection
    schedule: ScheduleSection
    seed: int


@dataclass(frozen=True, slots=True)
class Trained:
    """Hold the outcome of all parts.

    network: with the best weights of the last part, as the pack will have them, on `device`.
    seconds, steps: of all parts.
    """

    network: nn.Module
    task: Task
    last: Fitted
    counts: tuple[DataCount, ...]
    notes: tuple[str, ...]
    steps: int
    seconds: float
    device: torch.device
    earlier: tuple[tuple[str, Curve], ...]


# Builds the network as it starts, and what it is to learn.
Prepare = Callable[[RecipePart, GatheredPhotos], tuple[nn.Module, Task]]


def parts_of(recipe: Recipe) -> list[RecipePart]:
    """Return the earlier trainings, then the recipe's own."""
    stage, seed = recipe.model.stage, recipe.seed
    parts = [
        RecipePart(
            t.name,
            stage.model_copy(
                update={"classes": t.classes or stage.classes, "size": t.size or stage.size}
            ),
            t.data or recipe.data,
            t.schedule,
            seed + n,
        )
        for n, t in enumerate(recipe.transfer, 1)
    ]
    return [*parts, RecipePart("", stage, recipe.data, recipe.schedule, seed)]


def gather_part(recipe: Recipe, part: RecipePart) -> GatheredPhotos:
    """Gather the photos of one training. Raises UsageError as gather does."""
    where, classes = recipe.file, part.stage.classes
    return gather(
        part.data,
        recipe.stage,
        classes,
        recipe.seed,
        where=where,
        part=part.name,
        unusable=recipe.unusable,
    )


def train_parts(
    recipe: Recipe, work: Path, progress: TrainingProgress, prepare: Prepare
) -> Trained:
    """Train each part in a folder of its own below `work`, the last one in `work` itself.

    Parts that are done are not done again. Raises what gather, read_start and fit raise.
    """
    device = choose_device(recipe.run)
    first = recipe.start_from()
    state: Mapping[str, Tensor] | None = (
        read_start(first, recipe.model.stage) if first is not None else None
    )
    where, notes, counts = first.name if first is not None else "", list[str](), list[DataCount]()
    steps, seconds, earlier = 0, 0.0, list[tuple[str, Curve]]()
    for part in parts_of(recipe):
        progress.phase("reading photos")
        gathered = gather_part(recipe, part)
        counts += gathered.counts
        torch.manual_seed(part.seed)
        network, task = prepare(part, gathered)
        if state is not None:
            notes.append(start_from(network, state, where))
        if recipe.model.freeze == "backbone":
            freeze_backbone(network, str(recipe.file))
        folder = work / re.sub(r"[^\w.-]+", "-", part.name) if part.name else work
        title = f"training: {part.name}" if part.name else "training"
        plan = FitPlan(part.schedule, recipe.run, part.seed, str(recipe.file), title)
        fitted = fit(network, task, plan, folder, progress)
        state, where = fitted.weights, f"the training `{part.name}`"
        steps, seconds = steps + fitted.steps, seconds + fitted.seconds
        if part.name:
            notes.append(f"trained on `{part.name}` first: {_in_words(fitted)}")
            earlier.append((part.name, fitted.curve))
    network.load_state_dict(as_stored(fitted.weights))
    return Trained(
        network.to(device).eval(),
        task,
        fitted,
        tuple(counts),
        tuple(notes),
        steps,
        seconds,
        device,
        tuple(earlier),
    )


def as_stored(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensor rounded to half precision, as a pack stores it."""
    return {
        name: value.half().float() if value.is_floating_point() else value
        for name, value in weights.items()
    }


def _in_words(fitted: Fitted) -> str:
    best = max(point["score"] for point in fitted.curve)
    return f"{fitted.steps} steps, {fitted.seconds / 60:.1f} minutes, best score {best:.4g} ({fitted.stopped})"
