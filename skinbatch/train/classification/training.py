"""Train a classifier by a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from skinbatch.errors import UsageError
from skinbatch.metrics.bootstrap import Resampling
from skinbatch.metrics.calibration import (
    FOLDS,
    fit_calibration,
    held_out_probabilities,
    reliabilities,
)
from skinbatch.metrics.classification import MEAN, classification
from skinbatch.models.classifiers.classifier import build_network
from skinbatch.models.classifiers.family import classifier_spec
from skinbatch.models.stages import CalibrationTable, ClassifierStage
from skinbatch.train.classification.task import (
    WHOLE,
    ClassedPhoto,
    ClassifierTask,
    PhotoSamples,
    Threshold,
    best_threshold,
    choose,
    naming_threshold,
    several,
    targets,
)
from skinbatch.train.fitting.device import choose_device
from skinbatch.train.fitting.progress import TrainingProgress
from skinbatch.train.fitting.recipe_parts import RecipePart, Trained, train_parts
from skinbatch.train.photos.faces import cut_faces
from skinbatch.train.photos.gather import NONE, GatheredPhotos
from skinbatch.train.photos.groups import TakenPhoto, group_numbers
from skinbatch.train.photos.photo_store import StoredPhoto, memory_budget
from skinbatch.train.recipe import Recipe
from skinbatch.train.recipe_data import DataSection
from skinbatch.train.recipe_sections import CalibrationSection
from skinbatch.train.results.reliability import draw_reliability
from skinbatch.train.results.result import Metric, TrainedStage
from skinbatch.train.results.stored import metrics_of, save_stage

# Share of the memory for photos that validation may use.
VALID_MEMORY = 0.25
THRESHOLD_PHOTOS = 2000
THRESHOLD_VIEWS = 2
RELIABILITY = "reliability.png"
_SHOWN = (
    "recall",
    "precision",
    "specificity",
    "f1",
    "balanced_accuracy",
    "auc",
    "average_precision",
)


def train_classifier(recipe: Recipe, work: Path, progress: TrainingProgress) -> TrainedStage:
    """Train on photos with classes, or resume the training in `work`.

    Writes `classifier.safetensors` to `work`. Raises UsageError or PackError if the recipe, its
    files or its photos cannot be used.
    """
    stage = cast(ClassifierStage, recipe.model.stage)

    def prepare(part: RecipePart, gathered: GatheredPhotos) -> tuple[nn.Module, ClassifierTask]:
        mine = cast(ClassifierStage, part.stage)
        train, valid = (
            _classed(photos, part.data, recipe, progress)
            for photos in (gathered.train, gathered.valid)
        )
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
            sampling=part.schedule.sampling,
            apart=part.data.apart,
        )
        return build_network(classifier_spec(mine)), task

    trained = train_parts(recipe, work, progress, prepare)
    task = cast(ClassifierTask, trained.task)
    progress.phase("choosing the threshold")
    if recipe.calibration is not None:
        return _calibrated(recipe, work, trained, task, progress)

    threshold, note = stage.threshold, ""
    seen, truth = task.of_views(
        trained.network, THRESHOLD_VIEWS, recipe.seed, THRESHOLD_PHOTOS, trained.device
    )
    if not truth.any(axis=1).all():
        threshold = best_threshold(seen, truth)
        note = (
            f"The threshold {threshold:g} has the highest mean recall on {len(truth)} views of training photos, photos of "
            "none of the classes counting as much as all classes together."
        )
    progress.phase("measuring")
    probability = task.probabilities(trained.network, trained.device)
    metrics = measure(
        probability,
        targets(task.valid, stage.classes) > 0,
        stage,
        threshold,
        recipe,
        _groups(task.valid),
    )
    return save_stage(
        recipe,
        work,
        trained,
        metrics,
        fields={"threshold": threshold},
        notes=[note] if note else [],
    )


def _calibrated(
    recipe: Recipe, work: Path, trained: Trained, task: ClassifierTask, progress: TrainingProgress
) -> TrainedStage:
    """Fit the probabilities and the threshold to the validation photos.

    Each number is taken from probabilities that were fitted without the photo.
    """
    asked, stage = recipe.calibration, cast(ClassifierStage, recipe.model.stage)
    assert asked is not None
    softmax = stage.outputs == "softmax"
    logits, truth = (
        task.logits(trained.network, trained.device),
        targets(task.valid, stage.classes) > 0,
    )
    fitted = fit_calibration(logits, truth, softmax=softmax)
    groups = [photo.group or f"/{photo.photo.path}" for photo in task.valid]
    probability = held_out_probabilities(logits, truth, groups, recipe.seed, softmax=softmax)
    negatives = [photo.negative for photo in task.valid]
    threshold = naming_threshold(probability, truth, negatives, asked)

    progress.phase("measuring")
    metrics = measure(probability, truth, stage, threshold.value, recipe, _groups(task.valid))
    how = Resampling(seed=recipe.seed)
    curves = reliabilities(probability, truth, stage.classes, how, groups=_groups(task.valid))
    draw_reliability(curves, work / RELIABILITY)
    for name, curve in curves.items():
        error = curve.error
        metrics.append(
            Metric("calibration error", error.value, name, error.low, error.high, len(truth))
        )
    chosen = choose(probability, threshold.value, several=False)
    metrics += list(_kept(chosen, truth, negatives))

    table = CalibrationTable(
        scale=round(fitted.scale, 5), shift=tuple(round(float(s), 5) for s in fitted.shift)
    )
    fields = {"threshold": threshold.value, "calibration": table.model_dump(mode="json")}
    return save_stage(
        recipe,
        work,
        trained,
        metrics,
        fields=fields,
        notes=list(_notes(asked, threshold)),
        picture=work / RELIABILITY,
    )


def _notes(asked: CalibrationSection, threshold: Threshold) -> Iterator[str]:
    yield (
        "The probabilities are fitted to the validation photos by one scale and a shift for each class. The numbers are for "
        f"probabilities fitted to the other {FOLDS - 1} of {FOLDS} parts of these photos."
    )
    aims = (
        f"{asked.none_kept:.0%} of each folder of negatives have no class named, and {asked.named_right:.0%} of named "
        "classes are right"
    )
    if threshold.holds:
        yield f"The threshold {threshold.value:g} is the lowest at which {aims}."
    else:
        yield (
            f"There is no threshold at which {aims}. At {threshold.value:g} no class is named on the negatives as often as "
            "asked, and named classes are right most often."
        )


def _kept(
    chosen: NDArray[np.bool_], truth: NDArray[np.bool_], negatives: Sequence[str | None]
) -> Iterator[Metric]:
    """Yield how often nothing is named on negatives, and how often a named class is right."""
    named = np.asarray(chosen.any(axis=1), np.bool_)
    for folder in dict.fromkeys(name for name in negatives if name):
        mine = np.array([name == folder for name in negatives], np.bool_)
        kept = 1 - float(named[mine].mean())
        yield Metric(f"nothing named on {folder}", round(kept, 5), photos=int(mine.sum()))
    if named.any():
        right = float((chosen & truth).any(axis=1).sum() / named.sum())
        yield Metric("right where something is named", round(right, 5), photos=int(named.sum()))


def _groups(photos: Sequence[ClassedPhoto]) -> NDArray[np.int64] | None:
    return group_numbers([photo.group for photo in photos], [photo.photo.path for photo in photos])


def measure(
    probability: NDArray[np.float64],
    truth: NDArray[np.bool_],
    stage: ClassifierStage,
    threshold: float,
    recipe: Recipe,
    groups: NDArray[np.int64] | None = None,
) -> list[Metric]:
    """Return numbers of every class with intervals, and their means over the classes not apart.

    `none` (no top class) is added if there are such photos.

    Args:
        probability, truth: (N, C).
        groups: (N,), the same for photos that belong together.
    """
    chosen = choose(probability, threshold, several(truth))
    names, apart = list(stage.classes), set(recipe.data.apart)
    if not truth.any(axis=1).all():
        none = ~truth.any(axis=1, keepdims=True)
        truth = np.concatenate([truth, none], axis=1)
        chosen = np.concatenate([chosen, ~chosen.any(axis=1, keepdims=True)], axis=1)
        probability = np.concatenate(
            [probability, 1 - probability.max(axis=1, keepdims=True)], axis=1
        )
        names.append(NONE)
        apart.add(NONE)
    how = Resampling(seed=recipe.seed)
    numbers_of = classification(truth, probability, chosen, names, how, groups=groups, apart=apart)
    photos = {name: int(truth[:, n].sum()) for n, name in enumerate(names)} | {MEAN: len(truth)}
    return [
        Metric(m.name, m.value, m.of, m.low, m.high, photos[m.of])
        for m in metrics_of(numbers_of, _SHOWN, len(truth))
    ]


def _classed(
    photos: Sequence[TakenPhoto], data: DataSection, recipe: Recipe, progress: TrainingProgress
) -> list[ClassedPhoto]:
    """Return the photos with their classes, cut to faces if their view asks for it."""
    stored = [StoredPhoto(taken.photo.name, taken.path) for taken in photos]
    faces = [n for n, taken in enumerate(photos) if taken.view.face]
    if faces:
        pack = recipe.base_pack()
        if pack is None:
            raise UsageError(
                f"{recipe.file}: setting `face` needs a segmenter: name a pack in `base`, such as starter"
            )
        progress.phase(f"finding the faces of {len(faces)} photos")
        masked = recipe.model.stage.model_dump()["input"] == "masked_crop"
        device = str(choose_device(recipe.run))
        for n, cut in zip(
            faces, cut_faces([stored[n] for n in faces], pack, masked, device), strict=True
        ):
            stored[n] = cut
    return [
        ClassedPhoto(
            photo,
            taken.classes,
            taken.view.crop or (WHOLE,),
            taken.photo.group,
            taken.source if taken.negative else None,
        )
        for photo, taken in zip(stored, photos, strict=True)
    ]


def _check_outputs(recipe: Recipe, stage: ClassifierStage, photos: Sequence[ClassedPhoto]) -> None:
    if stage.outputs == "softmax" and (without := sum(not photo.classes for photo in photos)):
        raise UsageError(
            f"{recipe.file}: setting `model.outputs`: softmax assigns every photo to one of the classes, and {without} photos "
            'belong to none of them; set outputs = "logistic", or leave these photos out'
        )
