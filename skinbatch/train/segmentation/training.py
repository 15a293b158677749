"""Train a segmenter by a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from skinbatch.annotations.checks import mapped
from skinbatch.annotations.label_map import read_mask
from skinbatch.annotations.masks import CLASSES as TRUTH_CLASSES
from skinbatch.annotations.masks import UNSURE
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.segmentation import segmentation
from skinbatch.models.segmenters.bisenet import AUXILIARY, BiSeNet
from skinbatch.models.stages import SegmenterStage
from skinbatch.train.fitting.progress import TrainingProgress
from skinbatch.train.fitting.recipe_parts import RecipePart, train_parts
from skinbatch.train.photos.gather import GatheredPhotos
from skinbatch.train.photos.groups import TakenPhoto, group_numbers
from skinbatch.train.photos.photo_store import StoredPhoto, memory_budget
from skinbatch.train.photos.samples import Balanced, Samples
from skinbatch.train.recipe import Recipe
from skinbatch.train.recipe_data import DataSection
from skinbatch.train.recipe_sections import ScheduleSection
from skinbatch.train.results.result import TrainedStage
from skinbatch.train.results.stored import metrics_of, save_stage
from skinbatch.train.segmentation.task import FaceSamples, LabelledPhoto, SegmenterTask

# Share of the memory for photos that validation may use.
VALID_MEMORY = 0.25
_SHOWN = ("dice", "iou")


def train_segmenter(recipe: Recipe, work: Path, progress: TrainingProgress) -> TrainedStage:
    """Train on masks such as CelebAMask-HQ's, or resume the training in `work`.

    Writes `segmenter.safetensors` to `work`. Raises UsageError or PackError if the recipe, its
    files or its photos cannot be used.
    """

    def prepare(part: RecipePart, gathered: GatheredPhotos) -> tuple[nn.Module, SegmenterTask]:
        stage = cast(SegmenterStage, part.stage)
        table = class_table(stage.classes, part.data)
        train, valid = (_labelled(photos) for photos in (gathered.train, gathered.valid))
        memory = memory_budget()
        held = int(VALID_MEMORY * memory)
        samples: Samples = FaceSamples(train, table, stage, recipe.augment, memory - held)
        if part.schedule.sampling == "balanced":
            sources = [face.source for face in train]
            samples = Balanced(samples, sources, dict.fromkeys(sources, 1.0))
        weights = pixel_weights(train, table, len(stage.classes), part.schedule)
        smoothing = part.schedule.label_smoothing
        task = SegmenterTask(
            samples, valid, table, stage, held, smoothing=smoothing, weights=weights
        )
        network = BiSeNet(
            stage.arch, len(stage.classes), spatial=stage.spatial, align_corners=stage.align_corners
        )
        return network, task

    trained = train_parts(recipe, work, progress, prepare)
    task = cast(SegmenterTask, trained.task)
    stage = cast(SegmenterStage, recipe.model.stage)
    progress.phase("measuring")
    tables, how = task.pixels(trained.network, trained.device), Resampling(seed=recipe.seed)
    groups = group_numbers(
        [face.group for face in task.valid], [face.photo.path for face in task.valid]
    )
    numbers = segmentation(tables, stage.classes, how, groups=groups)
    metrics = metrics_of(numbers, _SHOWN, len(task.valid))
    sources = task.sources()
    for source, places in sources.items() if len(sources) > 1 else ():
        inner = None if groups is None else groups[places]
        numbers = segmentation(tables[places], stage.classes, how, groups=inner)
        own = metrics_of(numbers, _SHOWN, len(places))
        metrics += [dataclasses.replace(metric, of=f"{metric.of}, {source}") for metric in own]
    return save_stage(recipe, work, trained, metrics, left_out=AUXILIARY)


def class_table(classes: Sequence[str], data: DataSection) -> NDArray[np.uint8]:
    """Return the model's class of each number in a mask, (256,), by its name or by [data] map.

    Everything else is background; unsure pixels stay unsure.
    """
    table = np.full(256, classes.index("background"), np.uint8)
    table[UNSURE] = UNSURE
    mapping = data.mapping(classes)
    for number, name in enumerate(TRUTH_CLASSES):
        meant = mapped(name, mapping)
        if meant in classes:
            table[number] = classes.index(meant)
    return table


def pixel_weights(
    faces: Sequence[LabelledPhoto],
    table: NDArray[np.uint8],
    classes: int,
    schedule: ScheduleSection,
) -> list[float] | None:
    """Return a weight for each class: one over its share of the pixels, or the root of that.

    The mean over all pixels is 1.
    """
    if schedule.class_weights == "none":
        return None
    counts = np.zeros(classes)
    for face in faces:
        classes_of_pixels = table[face.numbers()]
        counts += np.bincount(classes_of_pixels[classes_of_pixels != UNSURE], minlength=classes)
    weights = 1 / np.maximum(counts, 1)
    if schedule.class_weights == "sqrt":
        weights = np.sqrt(weights)
    return [float(w) for w in weights * counts.sum() / (weights * counts).sum()]


def _labelled(photos: Sequence[TakenPhoto]) -> list[LabelledPhoto]:
    labelled = []
    for taken in photos:
        png = cv2.imencode(".png", read_mask(taken.photo))[1].tobytes()
        labelled.append(
            LabelledPhoto(
                StoredPhoto(taken.photo.name, taken.path), png, taken.source, taken.photo.group
            )
        )
    return labelled
