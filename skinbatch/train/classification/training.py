"""Trains a classifier by a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from skinbatch.errors import UsageError
from skinbatch.metrics.bootstrap import Resampling, numbered
from skinbatch.metrics.classification import MEAN, classification
from skinbatch.models.build import classifier_spec
from skinbatch.models.classifiers.classifier import build_network
from skinbatch.models.stages import ClassifierStage
from skinbatch.train.classification.task import (
    WHOLE,
    ClassedPhoto,
    ClassifierTask,
    PhotoSamples,
    best_threshold,
    choose,
    several,
    targets,
)
from skinbatch.train.fitting.device import choose_device
from skinbatch.train.fitting.parts import Part, train_parts
from skinbatch.train.fitting.progress import TrainingProgress
from skinbatch.train.photos.faces import cut_faces
from skinbatch.train.photos.gather import NONE, Gathered, TakenPhoto, group_of
from skinbatch.train.photos.photo_store import StoredPhoto, memory_budget
from skinbatch.train.recipe import Recipe
from skinbatch.train.recipe_sections import DataSection
from skinbatch.train.results.result import Metric, TrainedStage
from skinbatch.train.results.stored import metrics_of, save_stage

VALID_MEMORY = 0.25
"""Of the memory for photos, what validation may take."""
THRESHOLD_PHOTOS = 2000
THRESHOLD_VIEWS = 2
_SHOWN = ("recall", "precision", "specificity", "f1", "balanced_accuracy", "auc", "average_precision")


def train_classifier(recipe: Recipe, work: Path, progress: TrainingProgress) -> TrainedStage:
    """Train on photos with classes; carry on where `work` says. Leaves `classifier.safetensors` there.

    Raises UsageError and PackError for what is wrong with recipe, files or photos.
    """
    stage = cast(ClassifierStage, recipe.model.stage)

    def prepare(part: Part, gathered: Gathered) -> tuple[nn.Module, ClassifierTask]:
        mine = cast(ClassifierStage, part.stage)
        train, valid = (_classed(photos, part.data, recipe, progress) for photos in (gathered.train, gathered.valid))
        _check_outputs(recipe, mine, (*train, *valid))
        memory = memory_budget()
        held = int(VALID_MEMORY * memory)
        samples = PhotoSamples(train, mine, recipe.augment, memory - held)
        task = ClassifierTask(
            samples,
            valid,
            mine,
            held,
            smoothing=part.schedule.label_smoothing,
            weighting=part.schedule.class_weights,
            apart=part.data.apart,
        )
        return build_network(classifier_spec(mine)), task

    trained = train_parts(recipe, work, progress, prepare)
    task = cast(ClassifierTask, trained.task)
    progress.phase("choosing the threshold")
    threshold, note = stage.threshold, ""
    seen, truth = task.of_views(trained.network, THRESHOLD_VIEWS, recipe.seed, THRESHOLD_PHOTOS, trained.device)
    if not truth.any(axis=1).all():
        threshold = best_threshold(seen, truth)
        note = (
            f"The threshold {threshold:g} has the highest mean recall on {len(truth)} views of training photos, photos of "
            "none of the classes counting as much as all classes together."
        )
    progress.phase("measuring")
    probability = task.probabilities(trained.network, trained.device)
    metrics = measure(
        probability, targets(task.valid, stage.classes) > 0, stage, threshold, recipe, _groups(task.valid)
    )
    return save_stage(recipe, work, trained, metrics, fields={"threshold": threshold}, notes=[note] if note else [])


def _groups(photos: Sequence[ClassedPhoto]) -> NDArray[np.int64] | None:
    """What intervals are drawn over; None: the photos, where no group is known."""
    if all(photo.group is None for photo in photos):
        return None
    return numbered([photo.group or f"/{photo.photo.path}" for photo in photos])  # two sources may have one name


def measure(
    probability: NDArray[np.float64],
    truth: NDArray[np.bool_],
    stage: ClassifierStage,
    threshold: float,
    recipe: Recipe,
    groups: NDArray[np.int64] | None = None,
) -> list[Metric]:
    """Numbers of every class with intervals, of `none` (no top class) where there are such photos, and their means over
    the classes that are not apart. probability, truth: (N, C). groups: (N,) of photos that belong together."""
    chosen = choose(probability, threshold, several(truth))
    names, apart = list(stage.classes), set(recipe.data.apart)
    if not truth.any(axis=1).all():
        none = ~truth.any(axis=1, keepdims=True)
        truth = np.concatenate([truth, none], axis=1)
        chosen = np.concatenate([chosen, ~chosen.any(axis=1, keepdims=True)], axis=1)
        probability = np.concatenate([probability, 1 - probability.max(axis=1, keepdims=True)], axis=1)
        names.append(NONE)
        apart.add(NONE)
    how = Resampling(seed=recipe.seed)
    found = classification(truth, probability, chosen, names, how, groups=groups, apart=apart)
    photos = {name: int(truth[:, n].sum()) for n, name in enumerate(names)} | {MEAN: len(truth)}
    return [Metric(m.name, m.value, m.of, m.low, m.high, photos[m.of]) for m in metrics_of(found, _SHOWN, len(truth))]


def _classed(
    photos: Sequence[TakenPhoto], data: DataSection, recipe: Recipe, progress: TrainingProgress
) -> list[ClassedPhoto]:
    """Cut to faces where their view says so."""
    stored = [StoredPhoto(taken.photo.name, taken.path) for taken in photos]
    faces = [n for n, taken in enumerate(photos) if taken.view.face]
    if faces:
        pack = recipe.base_pack()
        if pack is None:
            raise UsageError(f"{recipe.file}: setting `face` needs a segmenter: name a pack in `base`, such as starter")
        progress.phase(f"finding the faces of {len(faces)} photos")
        masked = recipe.model.stage.model_dump()["input"] == "masked_crop"
        device = str(choose_device(recipe.run))
        for n, cut in zip(faces, cut_faces([stored[n] for n in faces], pack, masked, device), strict=True):
            stored[n] = cut
    return [
        ClassedPhoto(photo, taken.classes, taken.view.crop or (WHOLE,), group_of(taken, data))
        for photo, taken in zip(stored, photos, strict=True)
    ]


def _check_outputs(recipe: Recipe, stage: ClassifierStage, photos: Sequence[ClassedPhoto]) -> None:
    if stage.outputs == "softmax" and (without := sum(not photo.classes for photo in photos)):
        raise UsageError(
            f"{recipe.file}: setting `model.outputs`: softmax shares every photo out among the classes, and {without} photos "
            'are of none of them; take outputs = "logistic", or leave these photos out'
        )
