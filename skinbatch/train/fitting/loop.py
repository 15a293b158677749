"""Train segmenters and classifiers in a loop that is seeded and resumes to the step.

It runs on one device or on several machines.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
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
from skinbatch.train.fitting.checkpoint import (
    FitState,
    load_checkpoint,
    read_best,
    save_checkpoint,
    write_log,
    write_tensors,
)
from skinbatch.train.fitting.device import choose_device, hardware, loaders, mixed, rank, world
from skinbatch.train.fitting.interrupt import Interrupts
from skinbatch.train.fitting.optimiser import follow, make_optimiser, rate
from skinbatch.train.fitting.progress import TrainingProgress, TrainingStep
from skinbatch.train.photos.samples import Samples, Stream
from skinbatch.train.recipe_sections import RunSection, ScheduleSection

SAVE_EVERY_S = 60.0
SHOW_EVERY_S = 1.0


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
    run = _Run(network, task, plan, work, progress)
    with Interrupts() as interrupts:
        run.train(interrupts)
    return run.result()


class _Run:
    """Hold one training in progress."""

    def __init__(
        self, network: nn.Module, task: Task, plan: FitPlan, work: Path, progress: TrainingProgress
    ) -> None:
        self.task, self.plan, self.schedule, self.work, self.progress = (
            task,
            plan,
            plan.schedule,
            work,
            progress,
        )
        self.world, self.rank = world(), rank()
        self.device = choose_device(plan.run)
        if self.device.type == "cpu" and plan.run.threads is not None:
            torch.set_num_threads(plan.run.threads)
        torch.manual_seed(plan.seed)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = _copy(self.network) if self.schedule.ema else None
        self.optimiser = make_optimiser(self.network, self.schedule)
        self.amp = mixed(plan.run, self.device)
        self.scaler = GradScaler("cuda", enabled=self.amp)
        self.stream = Stream(task.samples, self.schedule.batch, plan.seed, self.rank, self.world)
        if self.schedule.batch < 2 * self.world:
            raise UsageError(
                f"{plan.where}: setting `schedule.batch`: {self.schedule.batch} photos for {self.world} workers; batch "
                "norm needs two photos on each"
            )
        work.mkdir(parents=True, exist_ok=True)
        self.state = load_checkpoint(work, self._parts(), self.device) or FitState()
        self.learner = self._learner()
        self.frozen = [
            m for m in self.network.modules() if isinstance(m, BatchNorm) and _is_frozen(m)
        ]
        self.loss = torch.zeros((), device=self.device)

    def train(self, interrupts: Interrupts) -> None:
        state, every = self.state, self.stream.steps_per_epoch * self.schedule.evaluate_every
        if state.step:
            self.progress.note(f"resumed after step {state.step}")
        if self._over():
            return
        self.progress.phase(self.plan.title)
        batches = self.stream.loader(state.step, loaders(self.plan.run, self.device), self.device)
        clock = _Clock()
        self.loss.fill_(state.loss_sum)
        # The first batch comes when the loader's processes have started. That is not part of any
        # step.
        first = [next(batches)]
        while True:
            used, stop = self._agreed(interrupts.asked)
            if stop:
                self._save()
                raise KeyboardInterrupt
            began = time.monotonic()
            photos, targets = first.pop() if first else next(batches)
            waited = time.monotonic() - began
            self._step(photos, targets, used)
            state.step += 1
            state.loss_steps += 1
            took = time.monotonic() - began
            state.seconds += took
            state.step_seconds += took
            state.waited += waited
            if state.step % every == 0 or self._length_over():
                self._evaluate()
                if self._over():
                    break
            elif clock.due("save", SAVE_EVERY_S):
                self._save()
            if self.rank == 0 and clock.due("show", SHOW_EVERY_S):
                self.progress.step(self._now())

    def result(self) -> Fitted:
        state, schedule = self.state, self.schedule
        if self.world > 1:
            dist.barrier()  # until the first worker has written the best weights
        best = read_best(self.work / "best.pt")
        reason = (
            f"the score did not rise for {schedule.patience} evaluations"
            if not self._length_over()
            else "the schedule was over"
        )
        return Fitted(
            best, tuple(state.curve), state.step, state.seconds, hardware(self.device), reason
        )

    @property
    def steps(self) -> int | None:
        if self.schedule.epochs is not None:
            return self.schedule.epochs * self.stream.steps_per_epoch
        return self.schedule.iterations

    def _used(self) -> float:
        """Return the share of the schedule that is over."""
        if self.steps is not None:
            return self.state.step / self.steps
        assert self.schedule.minutes is not None
        return self.state.seconds / (60 * self.schedule.minutes)

    def _length_over(self) -> bool:
        return self._agreed_number(self._used()) >= 1

    def _over(self) -> bool:
        return self._length_over() or 0 < self.schedule.patience <= self.state.since_best

    def _agreed(self, asked: bool) -> tuple[float, bool]:
        """Return the first worker's clock and anybody's wish to stop, the same on all workers."""
        used = self._agreed_number(self._used())
        if self.world == 1:
            return used, asked
        wish = torch.tensor(float(asked), device=self.device)
        dist.all_reduce(wish, dist.ReduceOp.MAX)
        return used, bool(wish)

    def _agreed_number(self, value: float) -> float:
        if self.world == 1 or self.steps is not None:
            return value
        first = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.broadcast(first, 0)
        return float(first)

    def _step(self, photos: Tensor, targets: Tensor, used: float) -> None:
        torch.manual_seed((self.plan.seed << 32) + self.state.step * self.world + self.rank)
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.lr * rate(self.schedule, self.state.step, used)
        x = self.task.prepare(photos.to(self.device, non_blocking=True))
        y = targets.to(self.device, non_blocking=True)
        self.learner.train()
        for norm in self.frozen:
            norm.eval()
        with torch.autocast(self.device.type, torch.float16, enabled=self.amp):
            loss = self.task.loss(self.learner, x, y)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.schedule.clip:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        # The sum stays on the device: asking for the number would wait for the GPU in every step.
        self.loss += loss.detach()
        if self.average is not None:
            follow(
                self.average,
                self.network,
                min(self.schedule.ema, (1 + self.state.step) / (10 + self.state.step)),
            )

    def _evaluate(self) -> None:
        state = self.state
        began = time.monotonic()
        mean = self._mean_loss()
        network = self.average if self.average is not None else self.network
        point: dict[str, float] = {}
        if self.rank == 0:
            self.progress.phase("evaluating")
            with torch.inference_mode():
                numbers = self.task.evaluate(network.eval(), self.device)
            point = {
                "step": state.step,
                "epoch": round(state.step / self.stream.steps_per_epoch, 2),
                "minutes": round((state.seconds + time.monotonic() - began) / 60, 2),
                "loss": round(mean, 5),
                "waited": round(state.waited / max(state.step_seconds, 1e-9), 4),
                **numbers,
            }
        point = self._from_first(point)
        state.curve.append(point)
        state.loss_steps, state.waited, state.step_seconds = 0, 0.0, 0.0
        self.loss.zero_()
        state.since_best += 1
        if point["score"] > state.best or len(state.curve) == 1:
            state.since_best = 0
        # Among equal scores, keep the weights that have learned longest.
        if point["score"] >= state.best or len(state.curve) == 1:
            state.best = point["score"]
            if self.rank == 0:
                write_tensors(dict(network.state_dict()), self.work / "best.pt")
        state.seconds += time.monotonic() - began
        self._save()
        if self.rank == 0:
            write_log(self.work, state.curve)
            self.progress.evaluated(point)
            self.progress.phase(self.plan.title)

    def _from_first(self, point: dict[str, float]) -> dict[str, float]:
        if self.world == 1:
            return point
        sent: list[Any] = [point]
        dist.broadcast_object_list(sent, 0)
        received: dict[str, float] = sent[0]
        return received

    def _mean_loss(self) -> float:
        total = self.loss.clone()
        if self.world > 1:
            dist.all_reduce(total)
        return self._checked(float(total) / self.world / max(1, self.state.loss_steps))

    def _checked(self, mean: float) -> float:
        """Return the loss, or raise UsageError if it is not finite."""
        if not math.isfinite(mean):
            raise UsageError(
                f"{self.plan.where}: the loss is {mean} at step {self.state.step}: the training has diverged; lower "
                f"`schedule.lr` ({self.schedule.lr:g}), raise `schedule.warmup`, or set `schedule.clip` = 5"
            )
        return mean

    def _now(self) -> TrainingStep:
        state, used = self.state, self._used()
        return TrainingStep(
            step=state.step,
            steps=self.steps,
            epoch=state.step // self.stream.steps_per_epoch + 1,
            loss=float(self.loss) / max(1, state.loss_steps),
            best=state.best if state.curve else None,
            waited=state.waited / max(state.step_seconds, 1e-9),
            left_s=state.seconds / used * (1 - used) if used > 0 else None,
        )

    def _save(self) -> None:
        """Save the training, on the first worker only, unless the weights are already lost.

        No worker waits for another here, because their clocks differ.
        """
        self.state.loss_sum = float(self.loss)
        self._checked(self.state.loss_sum / max(1, self.state.loss_steps))
        if self.rank == 0:
            save_checkpoint(self.work, self._parts(), self.state)

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {
            "network": self.network,
            "optimiser": self.optimiser,
            "scaler": self.scaler,
        }
        return parts | ({"average": self.average} if self.average is not None else {})

    def _learner(self) -> nn.Module:
        """Return the network, with gradients shared by all workers."""
        if self.world == 1:
            return self.network
        devices = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            self.network, device_ids=devices, find_unused_parameters=False
        )


class _Clock:
    """Remember when something was last done."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def due(self, what: str, every: float) -> bool:
        now = time.monotonic()
        if now - self._last.setdefault(what, now if what == "save" else -math.inf) < every:
            return False
        self._last[what] = now
        return True


def _is_frozen(layer: nn.Module) -> bool:
    """Return whether neither weights nor running statistics of a layer are trained."""
    return not any(parameter.requires_grad for parameter in layer.parameters())


def _copy(network: nn.Module) -> nn.Module:
    return deepcopy(network).eval().requires_grad_(False)
