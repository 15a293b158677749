"""Fit segmenters and classifiers: a network and its task learn along a course.

Every step is seeded, so a training resumes to the step, on one device or on several machines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from skinbatch.errors import UsageError
from skinbatch.train.fitting.course import BEST, Course
from skinbatch.train.fitting.device import (
    autocast_type,
    choose_device,
    hardware,
    loaders,
    rank,
    world,
)
from skinbatch.train.fitting.optimiser import follow, make_optimiser, rate
from skinbatch.train.fitting.progress import TrainingProgress
from skinbatch.train.fitting.saved_state import read_best
from skinbatch.train.photos.samples import Samples, Stream
from skinbatch.train.recipe_sections import RunSection, ScheduleSection


class Task(Protocol):
    """Describe what is learned.

    samples: to train on. prepare: turns a batch of uint8 photos into the network's input, on their
    device. loss: of one batch. evaluate: numbers about the validation photos; `score` should grow.
    """

    @property
    def samples(self) -> Samples: ...

    def prepare(self, photos: Tensor) -> Tensor: ...

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor: ...

    def evaluate(self, network: nn.Module, device: torch.device) -> Mapping[str, float]: ...


@dataclass(frozen=True, slots=True)
class FitPlan:
    """Describe how a network is fitted.

    where: the recipe, for messages. title: the task in a few words.
    """

    schedule: ScheduleSection
    run: RunSection
    seed: int
    where: str
    title: str = "training"


@dataclass(frozen=True, slots=True)
class Fitted:
    """Hold the result of a training.

    weights: of the best evaluation, averaged if so set. curve: see TrainedStage.
    """

    weights: Mapping[str, Tensor]
    curve: tuple[Mapping[str, float], ...]
    steps: int
    seconds: float
    hardware: str
    stopped: str


def fit(
    network: nn.Module, task: Task, plan: FitPlan, work: Path, progress: TrainingProgress
) -> Fitted:
    """Train until the schedule ends or validation stops improving.

    A training found in `work` is continued. `checkpoint.pt`, `best.pt` and `log.jsonl` are left
    there. With several workers (torch.distributed is initialised) all of them call this; the first
    one writes.

    Raises:
        UsageError: settings that this machine cannot follow, or a loss that is not finite.
        KeyboardInterrupt: interrupted; the checkpoint is written.
    """
    learner = _NetworkLearner(network, task, plan)
    work.mkdir(parents=True, exist_ok=True)
    steps = learner.stream.steps_per_epoch
    course = Course(
        plan.schedule, steps, learner, work, progress, where=plan.where, title=plan.title
    )
    course.run(learner.batches_from)
    if course.world > 1:
        dist.barrier()  # until the first worker has written the best weights
    state = course.state
    return Fitted(
        read_best(work / BEST),
        tuple(state.curve),
        state.step,
        state.seconds,
        hardware(learner.device),
        course.reason(),
    )


class _NetworkLearner:
    """Implement `Learner` with one network and its task."""

    usual_clip = 5.0

    def __init__(self, network: nn.Module, task: Task, plan: FitPlan) -> None:
        self.task, self.plan, self.schedule = task, plan, plan.schedule
        self.world, self.rank = world(), rank()
        self.device = choose_device(plan.run)
        if self.device.type == "cpu" and plan.run.threads is not None:
            torch.set_num_threads(plan.run.threads)
        torch.manual_seed(plan.seed)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = _copy(self.network) if self.schedule.ema else None
        self.optimiser = make_optimiser(self.network, self.schedule)
        self.autocast = autocast_type(plan.run, self.device)
        self.scaler = GradScaler("cuda", enabled=self.autocast is torch.float16)
        self.stream = Stream(task.samples, self.schedule.batch, plan.seed, self.rank, self.world)
        if self.schedule.batch < 2 * self.world:
            raise UsageError(
                f"{plan.where}: setting `schedule.batch`: {self.schedule.batch} photos for {self.world} workers; batch "
                "norm needs two photos on each"
            )
        self.learner = self._shared()
        self.frozen = [
            m for m in self.network.modules() if isinstance(m, BatchNorm) and _is_frozen(m)
        ]
        self.loss = torch.zeros((), device=self.device)

    def batches_from(self, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the batches from a step on, without end."""
        return self.stream.loader(step, loaders(self.plan.run, self.device), self.device)

    def parts(self) -> dict[str, Any]:
        """Return what a checkpoint holds, by name."""
        parts: dict[str, Any] = {
            "network": self.network,
            "optimiser": self.optimiser,
            "scaler": self.scaler,
        }
        return parts | ({"average": self.average} if self.average is not None else {})

    def learn(self, batch: tuple[Tensor, Tensor], step: int, used: float) -> None:
        """Take one step and add its loss."""
        photos, targets = batch
        torch.manual_seed((self.plan.seed << 32) + step * self.world + self.rank)
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.lr * rate(self.schedule, step, used)
        x = self.task.prepare(photos.to(self.device, non_blocking=True))
        y = targets.to(self.device, non_blocking=True)

        self.learner.train()
        for norm in self.frozen:
            norm.eval()
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            loss = self.task.loss(self.learner, x, y)

        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.schedule.clip:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.loss += loss.detach()
        if self.average is not None:
            decay = min(self.schedule.ema, (1 + step) / (10 + step))
            follow(self.average, self.network, decay)

    def evaluate(self) -> Mapping[str, float]:
        """Return numbers about the validation photos, on the first worker only."""
        if self.rank != 0:
            return {}
        with torch.inference_mode():
            return self.task.evaluate(self._evaluated().eval(), self.device)

    def weights(self) -> Mapping[str, Tensor]:
        """Return the weights that are evaluated."""
        return dict(self._evaluated().state_dict())

    def _evaluated(self) -> nn.Module:
        return self.network if self.average is None else self.average

    def _shared(self) -> nn.Module:
        """Return the network, with gradients shared by all workers."""
        if self.world == 1:
            return self.network
        devices = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            self.network, device_ids=devices, find_unused_parameters=False
        )


def _is_frozen(layer: nn.Module) -> bool:
    """Return whether neither weights nor running statistics of a layer are trained."""
    return not any(parameter.requires_grad for parameter in layer.parameters())


def _copy(network: nn.Module) -> nn.Module:
    return deepcopy(network).eval().requires_grad_(False)
