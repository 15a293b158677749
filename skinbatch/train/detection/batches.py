"""Make a detector's training inputs from annotated and clear photos."""

from __future__ import annotations

from typing import Any

import torch

from skinbatch.models.detectors.mmdet.detector import network_scale
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.train.detection.clones import Cloner
from skinbatch.train.detection.crops import Changes
from skinbatch.train.detection.detection_data import DetectionData
from skinbatch.train.detection.lesion_shares import as_lines, shares
from skinbatch.train.detection.loader import Order, TrainingInputs, loader
from skinbatch.train.detection.scaled_photos import ScaledPhotos
from skinbatch.train.fitting.device import loaders, rank, world
from skinbatch.train.fitting.recipe_parts import RecipePart
from skinbatch.train.recipe import Recipe
from skinbatch.train.recipe_sections import AugmentSection

# Share of the training inputs that are clear if there are clear photos and [data] sets no other
# share.
CLEAR_SHARE = 0.08
PAD_TO = 32
# Factor by which shapes are varied beyond those that a stretched photo had and has.
BEYOND = 1.1


def training_batches(
    recipe: Recipe,
    part: RecipePart,
    data: DetectionData,
    spec: DetectorSpec,
    device: torch.device,
) -> tuple[Any, Order, list[str]]:
    """Return the loader, its order, and one line for each source about what it shows."""
    changes = changes_of(recipe.augment, part.data.aspect, longest_side(data, spec), spec)
    photos, clear = ScaledPhotos(data.train, spec), ScaledPhotos(data.clear, spec)
    cloner = None if recipe.clone is None else Cloner(photos, clear, recipe.clone)
    inputs = TrainingInputs(photos, clear, changes, part.seed, cloner)
    share = part.data.negative_share or CLEAR_SHARE
    extra = round(inputs.annotated * share / (1 - share)) if len(clear) else 0
    batch = part.schedule.batch // world()
    order = Order(inputs.annotated, extra, batch, part.seed, rank=rank(), world=world())

    shown = list(as_lines(shares(inputs, order)))
    pinned = device.type == "cuda"
    return (
        loader(inputs, order, loaders(recipe.run, device), pinned=pinned),
        order,
        shown,
    )


def longest_side(data: DetectionData, spec: DetectorSpec) -> int:
    """Return the side of a square that every training photo fits into at network scale.

    It is a multiple of PAD_TO.
    """
    sides = (max(p.width, p.height) * network_scale(p.width, p.height, spec) for p in data.train)
    return -(-round(max(sides)) // PAD_TO) * PAD_TO


def changes_of(
    augment: AugmentSection, aspect: float | None, side: int, spec: DetectorSpec
) -> Changes:
    """Return how inputs are made.

    Args:
        aspect: width / height of photos before they were stretched. They are shown in every shape
            between that and their present one, and a little beyond.
        side: of a square that a whole photo fits into.
    """
    if aspect is not None:
        low, high = augment.stretch
        widened = (low * min(1.0, aspect) / BEYOND, high * max(1.0, aspect) * BEYOND)
        augment = augment.model_copy(update={"stretch": widened})
    part = max(PAD_TO, round(augment.crop * side / PAD_TO) * PAD_TO) if augment.crop else side
    grey = spec.padding
    red, green, blue = (round(value) for value in ((grey,) * 3 if grey is not None else spec.mean))
    return Changes(part, augment, whole=not augment.crop, fill=(red, green, blue))
