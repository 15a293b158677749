"""Train a detector by a recipe: `skinbatch train detector`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed as dist
from mmengine.registry import DefaultScope

from skinbatch.config import ModelSettings
from skinbatch.errors import UsageError
from skinbatch.models.detectors.mmdet.detector import build_model
from skinbatch.models.detectors.mmdet.family import detector_spec
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.models.manifest import DETECTOR_CONFIG
from skinbatch.models.stages import DetectorStage
from skinbatch.models.weights import load_weights, save_weights
from skinbatch.train.detection.anchoring import with_fitted_anchors
from skinbatch.train.detection.batches import training_batches
from skinbatch.train.detection.detection_data import DetectionData, Faces, boxed
from skinbatch.train.detection.inputs import NetworkInputs
from skinbatch.train.detection.learner import DetectorLearner
from skinbatch.train.detection.measure import evaluation, measure
from skinbatch.train.detection.preparation import expect_boxes_of, freeze
from skinbatch.train.detection.scaled_photos import network_sizes
from skinbatch.train.fitting.course import BEST, Course, Weights
from skinbatch.train.fitting.device import autocast_type, choose_device, hardware, rank, world
from skinbatch.train.fitting.progress import TrainingProgress
from skinbatch.train.fitting.recipe_parts import RecipePart, gather_part, parts_of
from skinbatch.train.fitting.saved_state import FitState, read_best
from skinbatch.train.fitting.start import read_start, start_from
from skinbatch.train.photos.photo_store import memory_budget
from skinbatch.train.photos.processes import batches_of
from skinbatch.train.recipe import Recipe
from skinbatch.train.results.result import Curve, DataCount, TrainedStage


@dataclass(frozen=True, slots=True)
class _Trained:
    spec: DetectorSpec
    stage: DetectorStage
    data: DetectionData
    best: Weights
    state: FitState
    stopped: str
    notes: tuple[str, ...]


def train_detector(recipe: Recipe, work: Path, progress: TrainingProgress) -> TrainedStage:
    """Train the detector of a recipe, or resume the training in `work`.

    Writes checkpoints, `log.jsonl`, `best.pt` and `detector.safetensors` to `work`. Earlier
    trainings ([[transfer]]) get folders of their own in it. If torch.distributed is initialised,
    every worker calls this; the first one writes.

    Raises:
        UsageError: a setting or a photo, named in the message, cannot be used.
        KeyboardInterrupt: interrupted; the checkpoint is written.
    """
    stage = recipe.model.stage
    assert isinstance(stage, DetectorStage)
    _check(recipe)
    run = _Run(recipe, choose_device(recipe.run), progress)
    config, stage = run.user_config(stage, work)
    path = recipe.start_from()
    start: tuple[str, Weights] | None = (
        (path.name, read_start(path, stage)) if path is not None else None
    )
    counts: list[DataCount] = []
    notes: list[str] = []
    steps, seconds, earlier = 0, 0.0, list[tuple[str, Curve]]()
    for part in parts_of(recipe):
        own: dict[str, Any] = {"classes": part.stage.classes}
        if part.stage.size != recipe.model.stage.size:
            own["size"] = part.stage.size
        trained = run.fit(replace(part, stage=stage.model_copy(update=own)), start, work)
        start = (f"the training `{part.name}`", trained.best)
        counts += trained.data.counts
        steps, seconds = steps + trained.state.step, seconds + trained.state.seconds
        if part.name:
            earlier.append((part.name, tuple(trained.state.curve)))
        notes += [f"{part.name}: {note}" if part.name else note for note in trained.notes]
    progress.phase("evaluating on all validation photos")
    threshold, metrics = measure(recipe, trained.spec, trained.best, trained.data, run.device)
    weights = work / "detector.safetensors"
    parameters = run.write(trained, weights)
    fields = trained.stage.model_copy(update={"threshold": threshold}).model_dump(
        mode="json",
        exclude={"sha256", "config_sha256", "parameters", "source", "licence"},
        exclude_none=True,
    )
    return TrainedStage(
        stage="detector",
        fields=fields,
        weights=weights,
        parameters=parameters,
        metrics=tuple(metrics),
        curve=tuple(trained.state.curve),
        earlier=tuple(earlier),
        data=tuple(counts),
        steps=steps,
        seconds=seconds,
        hardware=hardware(run.device),
        stopped=trained.stopped,
        notes=tuple(notes),
        config=config,
    )


def _check(recipe: Recipe) -> None:
    for schedule in (recipe.schedule, *(t.schedule for t in recipe.transfer)):
        if schedule.label_smoothing or schedule.class_weights != "none":
            raise UsageError(
                f"{recipe.file}: settings `schedule.label_smoothing` and `class_weights` are for classifiers; leave them out"
            )
        if schedule.batch % world():
            raise UsageError(
                f"{recipe.file}: setting `schedule.batch`: {schedule.batch} photos cannot be divided among {world()} workers; "
                f"give a multiple of {world()}"
            )


class _Run:
    """Train the recipe on this worker's device."""

    def __init__(self, recipe: Recipe, device: torch.device, progress: TrainingProgress) -> None:
        self.recipe, self.device, self.progress = recipe, device, progress
        self.where = str(recipe.file)
        self.user_model: dict[str, Any] | None = None
        if device.type == "cpu" and recipe.run.threads is not None:
            torch.set_num_threads(recipe.run.threads)

    def user_config(self, stage: DetectorStage, work: Path) -> tuple[Path | None, DetectorStage]:
        """Return a user's config and the stage with its values.

        The config is written to `work` as a pack holds it.

        For other architectures than `mmdet`, return None and the stage.
        """
        if self.recipe.model.config is None:
            return None, stage
        from skinbatch.models.detectors.mmdet.user_config import read_config

        self.user_model, fields = read_config(self.recipe.model.config)
        defaults = DetectorStage.model_fields
        # What the recipe sets takes precedence.
        unset = {
            name: value
            for name, value in fields.items()
            if name != "classes" and getattr(stage, name) == defaults[name].default
        }
        work.mkdir(parents=True, exist_ok=True)
        path = work / DETECTOR_CONFIG
        path.write_text(json.dumps(self.user_model, indent=1), encoding="utf-8")
        return path, DetectorStage.model_validate_json(
            json.dumps(stage.model_dump(mode="json") | unset)
        )

    def fit(self, part: RecipePart, start: tuple[str, Weights] | None, work: Path) -> _Trained:
        """Run one training. work: its folder; earlier trainings have one of their own."""
        recipe, notes = self.recipe, list[str]()
        stage = part.stage
        assert isinstance(stage, DetectorStage)
        folder = work / re.sub(r"[^\w.-]+", "-", part.name) if part.name else work
        folder.mkdir(parents=True, exist_ok=True)
        self.progress.phase("reading annotations")
        faces = Faces(
            recipe.base_pack(),
            stage.input == "masked_crop",
            str(self.device),
            recipe.clone is not None,
            folder,
        )
        data = boxed(
            gather_part(recipe, part),
            part.data,
            stage.classes,
            faces,
            self._spec(stage),
            self.where,
        )
        notes += data.notes
        sizes = network_sizes(data.train, self._spec(stage))
        if recipe.model.fit_anchors is not None:
            stage, fit = with_fitted_anchors(
                stage, sizes, recipe.model.fit_anchors, part.seed, self.where
            )
            notes.append(fit)
        spec = self._spec(stage)
        torch.manual_seed(part.seed)
        model = build_model(_trainable(spec))
        expect_boxes_of(model, float(np.median(np.sqrt(sizes.prod(1)))), spec)
        if start is not None:
            notes.append(start_from(model, start[1], start[0]))
        self.progress.phase("looking at training inputs")
        batches, order, shown = training_batches(recipe, part, data, spec, self.device)
        notes += shown
        frozen = freeze(model) if recipe.model.freeze == "backbone" else None
        for note in notes:
            self.progress.note(note)
        model.data_preprocessor = NetworkInputs(spec)
        learner = DetectorLearner(
            model,
            part.schedule,
            evaluation(recipe, data, spec, self.device),
            seed=part.seed,
            device=self.device,
            mixed=autocast_type(recipe.run, self.device) is not None,
            frozen=frozen,
        )
        course = Course(part.schedule, len(order), learner, folder, self.progress, where=self.where)
        cv2.setNumThreads(0)  # the loader's processes are forked, and would wait for its threads
        if not course.over():
            self.progress.phase("reading photos")
            together = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            batches.dataset.fill(memory_budget() // together)
        self._train(course, batches)
        if dist.is_initialized():
            dist.barrier()  # until the first worker has written the best weights
        best = read_best(folder / BEST)
        return _Trained(spec, stage, data, best, course.state, course.reason(), tuple(notes))

    def _train(self, course: Course, loader: Any) -> None:
        def batches_from(step: int) -> Iterator[Any]:
            loader.batch_sampler.first = step
            return batches_of(loader)

        try:
            # Models of some configs look up parts of theirs by name while they learn.
            with DefaultScope.overwrite_default_scope("mmdet"):
                course.run(batches_from)
        except (LookupError, AttributeError, TypeError, AssertionError) as e:
            if self.user_model is None:
                raise
            # A config that is good enough to run may lack what training needs. mmdet finds out in
            # many ways.
            raise UsageError(
                f"{self.recipe.model.config}: `{self.user_model['type']}` cannot be trained by this config: "
                f"{type(e).__name__}: {e}; is its `train_cfg` missing?"
            ) from e

    def write(self, trained: _Trained, path: Path) -> int:
        """Write the weights, on the first worker only, and return the number of parameters."""
        model = build_model(trained.spec)
        load_weights(model, trained.best, str(path))
        if rank() == 0:
            save_weights(model, path)
        return sum(parameter.numel() for parameter in model.parameters())

    def _spec(self, stage: DetectorStage) -> DetectorSpec:
        return detector_spec(stage, ModelSettings(), self.user_model)


def _trainable(spec: DetectorSpec) -> DetectorSpec:
    """Return a user's model with the only RoIAlign here that has a gradient."""
    return spec if spec.model is None else replace(spec, model=_with_gradient(spec.model))


def _with_gradient(config: Any) -> Any:
    if isinstance(config, Mapping):
        made = {name: _with_gradient(value) for name, value in config.items()}
        return made | ({"use_torchvision": True} if made.get("type") == "RoIAlign" else {})
    return [_with_gradient(value) for value in config] if isinstance(config, list) else config
