"""Train a detector by a recipe: `skinbatch train detector`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from skinbatch.config import ModelSettings
from skinbatch.errors import UsageError
from skinbatch.models.detectors.mmdet.detector import MMDetDetector, build_model, network_scale
from skinbatch.models.detectors.mmdet.family import detector_spec
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.models.manifest import DETECTOR_CONFIG
from skinbatch.models.stages import DetectorStage
from skinbatch.models.weights import load_weights, save_weights
from skinbatch.train.detection.anchoring import with_fitted_anchors
from skinbatch.train.detection.clone_trial import (
    SeenFace,
    cloned_faces,
    judge,
    quiet_threshold,
    see,
)
from skinbatch.train.detection.clones import Cloner
from skinbatch.train.detection.crops import Changes
from skinbatch.train.detection.data import DetectionData, Faces, boxed
from skinbatch.train.detection.inputs import NetworkInputs
from skinbatch.train.detection.loader import Order, TrainingInputs, loader
from skinbatch.train.detection.loop import BEST, Course, Weights
from skinbatch.train.detection.photos import ScaledPhotos, network_sizes
from skinbatch.train.detection.runner import DetectorRunner, Setting
from skinbatch.train.detection.scores import Scored, detect, make_detector, spread
from skinbatch.train.detection.shares import as_lines, shares
from skinbatch.train.detection.start import expect_boxes_of, freeze
from skinbatch.train.fitting.checkpoint import FitState, read_best
from skinbatch.train.fitting.device import choose_device, hardware, loaders, mixed
from skinbatch.train.fitting.parts import Part, gather_part, parts_of
from skinbatch.train.fitting.progress import TrainingProgress
from skinbatch.train.fitting.start import read_start, start_from
from skinbatch.train.recipe import Recipe
from skinbatch.train.recipe_sections import AugmentSection
from skinbatch.train.results.result import Curve, DataCount, Metric, TrainedStage

# Number of validation photos in every evaluation but the last, which takes all, and of training
# photos for its threshold.
WATCHED = 96
# Number of training photos for the final threshold.
FOR_THRESHOLD = 283
# Share of the training inputs that are clear if there are clear photos and [data] sets no other
# share.
CLEAR_SHARE = 0.08
PAD_TO = 32
# Factor by which shapes are varied beyond those that a stretched photo had and has.
BEYOND = 1.1


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
        trained = run.fit(
            replace(part, stage=stage.model_copy(update={"classes": part.stage.classes})),
            start,
            work,
        )
        start = (f"the training `{part.name}`", trained.best)
        counts += trained.data.counts
        steps, seconds = steps + trained.state.step, seconds + trained.state.seconds
        if part.name:
            earlier.append((part.name, tuple(trained.state.curve)))
        notes += [f"{part.name}: {note}" if part.name else note for note in trained.notes]
    threshold, metrics = run.measure(trained)
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
        if schedule.batch % _world():
            raise UsageError(
                f"{recipe.file}: setting `schedule.batch`: {schedule.batch} photos cannot be divided among {_world()} workers; "
                f"give a multiple of {_world()}"
            )


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


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
        from skinbatch.models.detectors.mmdet.config import read_config

        self.user_model, said = read_config(self.recipe.model.config)
        defaults = DetectorStage.model_fields
        unsaid = {
            n: v
            for n, v in said.items()
            if n != "classes" and getattr(stage, n) == defaults[n].default
        }
        work.mkdir(parents=True, exist_ok=True)
        path = work / DETECTOR_CONFIG
        path.write_text(json.dumps(self.user_model, indent=1), encoding="utf-8")
        return path, DetectorStage.model_validate_json(
            json.dumps(stage.model_dump(mode="json") | unsaid)
        )

    def fit(self, part: Part, start: tuple[str, Weights] | None, work: Path) -> _Trained:
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
            stage, said = with_fitted_anchors(
                stage, sizes, recipe.model.fit_anchors, part.seed, self.where
            )
            notes.append(said)
        spec = self._spec(stage)
        torch.manual_seed(part.seed)
        model = build_model(_trainable(spec))
        expect_boxes_of(model, float(np.median(np.sqrt(sizes.prod(1)))), spec)
        if start is not None:
            notes.append(start_from(model, start[1], start[0]))
        batches, order, shown = self._batches(part, data, spec)
        notes += shown
        frozen = freeze(model) if recipe.model.freeze == "backbone" else None
        for note in notes:
            self.progress.note(note)
        model.data_preprocessor = NetworkInputs(spec)
        course = Course(
            schedule=part.schedule,
            seed=part.seed,
            steps_an_epoch=len(order),
            evaluate=self._evaluation(data, spec),
            where=self.where,
            frozen=frozen,
        )
        setting = Setting(self.device, mixed(recipe.run, self.device), dist.is_initialized())
        runner = DetectorRunner(model, batches, course, setting, folder, self.progress)
        self._train(runner)
        if dist.is_initialized():
            dist.barrier()
        state = runner.train_loop.state
        over = course.used(state) >= 1
        stopped = (
            "the schedule was over"
            if over
            else f"the score did not rise for {part.schedule.patience} evaluations"
        )
        best = read_best(folder / BEST)
        return _Trained(spec, stage, data, best, state, stopped, tuple(notes))

    def _train(self, runner: DetectorRunner) -> None:
        try:
            runner.train()
        except (LookupError, AttributeError, TypeError, AssertionError) as e:
            if self.user_model is None:
                raise
            # A config that is good enough to run may lack what training needs. mmdet finds out in
            # many ways.
            raise UsageError(
                f"{self.recipe.model.config}: `{self.user_model['type']}` cannot be trained by this config: "
                f"{type(e).__name__}: {e}; is its `train_cfg` missing?"
            ) from e

    def measure(self, trained: _Trained) -> tuple[float, list[Metric]]:
        """Return the threshold and the validation numbers.

        The threshold has the best counts on training photos, unless [clone] asks for a higher one.
        """
        self.progress.phase("evaluating on all validation photos")
        data, detector = trained.data, make_detector(trained.spec, trained.best, self.device)
        chosen = spread(data.train, FOR_THRESHOLD)
        threshold = Scored.of(chosen, detect(detector, chosen)).best_threshold()
        clone, faces = self.recipe.clone, list[SeenFace]()
        if clone is not None and data.held_clear:
            faces = see(
                detector,
                cloned_faces(data.held_clear, data.valid, trained.spec, clone, self.recipe.seed),
            )
            threshold = quiet_threshold(faces, threshold, clone)

        scored = Scored.of(data.valid, detect(detector, data.valid))
        metrics = scored.metrics(threshold, trained.spec.classes)
        guess = float(np.mean([len(photo.boxes) for photo in data.train]))
        off = float(np.abs(scored.truth.per_photo() - guess).mean())
        metrics.append(
            Metric("count MAE of guessing the training mean", off, photos=len(data.valid))
        )
        metrics += self._by_source(data, detector, threshold)
        if faces:
            trial = judge(faces, threshold)
            metrics.append(
                Metric("cloned lesions that are counted", trial.lesions, photos=trial.faces)
            )
            metrics.append(
                Metric("cloned plain skin that is counted", trial.plain, photos=trial.faces)
            )
        if data.held_clear:
            alarms = [
                int((found.scores >= threshold).sum())
                for found in detect(detector, data.held_clear)
            ]
            metrics.append(
                Metric("boxes a photo without lesions", float(np.mean(alarms)), photos=len(alarms))
            )
        return threshold, metrics

    def _by_source(
        self, data: DetectionData, detector: MMDetDetector, threshold: float
    ) -> list[Metric]:
        """Return AP50 and count error of each source of validation photos, if there are several."""
        sources = dict.fromkeys(photo.source for photo in data.valid)
        made: list[Metric] = []
        for name in sources if len(sources) > 1 else ():
            photos = [photo for photo in data.valid if photo.source == name]
            scored = Scored.of(photos, detect(detector, photos))
            numbers = {
                metric.name: metric for metric in scored.metrics(threshold, detector.spec.classes)
            }
            made += [
                replace(numbers[key], of=name) for key in ("AP50", "count MAE") if key in numbers
            ]
        return made

    def write(self, trained: _Trained, path: Path) -> int:
        """Write the weights, on the first worker only, and return the number of parameters."""
        model = build_model(trained.spec)
        load_weights(model, trained.best, str(path))
        if _rank() == 0:
            save_weights(model, path)
        return sum(parameter.numel() for parameter in model.parameters())

    def _spec(self, stage: DetectorStage) -> DetectorSpec:
        return detector_spec(stage, ModelSettings(), self.user_model)

    def _batches(
        self, part: Part, data: DetectionData, spec: DetectorSpec
    ) -> tuple[Any, Order, list[str]]:
        """Return the loader, its order, and one line for each source about what it shows."""
        changes = changes_of(self.recipe.augment, part.data.aspect, longest_side(data, spec), spec)
        photos, clear = ScaledPhotos(data.train, spec), ScaledPhotos(data.clear, spec)
        cloner = None if self.recipe.clone is None else Cloner(photos, clear, self.recipe.clone)
        inputs = TrainingInputs(photos, clear, changes, part.seed, cloner)
        share = part.data.negative_share or CLEAR_SHARE
        extra = round(inputs.annotated * share / (1 - share)) if len(clear) else 0
        batch = part.schedule.batch // _world()
        order = Order(inputs.annotated, extra, batch, part.seed, rank=_rank(), world=_world())
        self.progress.phase("looking at training inputs")
        shown = list(as_lines(shares(inputs, order)))
        pinned = self.device.type == "cuda"
        return (
            loader(inputs, order, loaders(self.recipe.run, self.device), pinned=pinned),
            order,
            shown,
        )

    def _evaluation(self, data: DetectionData, spec: DetectorSpec) -> Any:
        clone, seed = self.recipe.clone, self.recipe.seed
        watched, known = spread(data.valid, WATCHED), spread(data.train, WATCHED)

        def evaluate(weights: Weights) -> dict[str, float]:
            detector = make_detector(spec, weights, self.device)
            learned = Scored.of(known, detect(detector, known))
            seen = Scored.of(watched, detect(detector, watched))
            threshold = learned.best_threshold()
            ap50, cloned = seen.ap50(), dict[str, float]()
            score = ap50
            if clone is not None and data.held_clear:
                faces = cloned_faces(data.held_clear, data.valid, spec, clone, seed)
                trial = judge(see(detector, faces), threshold)
                score = (ap50 + trial.lesions - trial.plain) / 2
                cloned = {
                    "ap50": round(ap50, 4),
                    "clones": round(trial.lesions, 4),
                    "plain": round(trial.plain, 4),
                    "clear_boxes": round(trial.clear_boxes, 3),
                }
            return {
                "score": round(score, 4),
                **cloned,
                "count_mae": round(seen.count_mae(threshold), 3),
                "train_count_mae": round(learned.count_mae(threshold), 3),
                "threshold": threshold,
            }

        return evaluate


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


def _trainable(spec: DetectorSpec) -> DetectorSpec:
    """Return a user's model with the only RoIAlign here that has a gradient."""
    return spec if spec.model is None else replace(spec, model=_with_gradient(spec.model))


def _with_gradient(config: Any) -> Any:
    if isinstance(config, Mapping):
        made = {name: _with_gradient(value) for name, value in config.items()}
        return made | ({"use_torchvision": True} if made.get("type") == "RoIAlign" else {})
    return [_with_gradient(value) for value in config] if isinstance(config, list) else config
