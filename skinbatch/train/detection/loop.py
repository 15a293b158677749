"""Run mmengine's training loop by steps or minutes, resumable to the step.

The time spent waiting for data is measured.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, broadcast, get_dist_info
from mmengine.runner import BaseLoop
from torch import Tensor

from skinbatch.errors import UsageError
from skinbatch.train.fitting.checkpoint import (
    FitState,
    load_checkpoint,
    save_checkpoint,
    write_log,
    write_tensors,
)
from skinbatch.train.fitting.interrupt import Interrupts
from skinbatch.train.fitting.optimiser import rate
from skinbatch.train.fitting.progress import TrainingProgress, TrainingStep
from skinbatch.train.photos.photo_store import memory_budget
from skinbatch.train.photos.processes import batches_of
from skinbatch.train.recipe_sections import ScheduleSection

BEST = "best.pt"
# Larger weights do not fit into a pack.
STORED = torch.finfo(torch.float16).max
SAVE_EVERY_S = 120.0
SHOW_EVERY_S = 1.0

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Course:
    """Describe how a loop proceeds.

    Attributes:
        steps_an_epoch: of the optimiser.
        evaluate: called with averaged weights; returns numbers, of which `score` should grow. All
            workers call it and get the same.
        where: the recipe, for messages.
        frozen: name of a part of the model that does not learn.
    """

    schedule: ScheduleSection
    seed: int
    steps_an_epoch: int
    evaluate: Callable[[Weights], Mapping[str, float]]
    where: str
    frozen: str | None = None

    @property
    def steps(self) -> int | None:
        """Return the total number of steps; None if minutes decide."""
        if self.schedule.epochs is not None:
            return self.schedule.epochs * self.steps_an_epoch
        return self.schedule.iterations

    def used(self, state: FitState) -> float:
        """Return the share of the schedule that is over."""
        if self.steps is not None:
            return state.step / self.steps
        assert self.schedule.minutes is not None
        return state.seconds / (60 * self.schedule.minutes)


class TrainLoop(BaseLoop):
    """Train, and resume from `work/checkpoint.pt` if it exists.

    The checkpoint holds the model, the averaged model, the optimiser and the place in the stream of
    batches. Torch's generator is seeded anew in every step, so its random numbers are the same too.

    All workers run the loop. The first one's clock counts, and only the first one writes.
    """

    def __init__(
        self, runner: Any, batches: Any, course: Course, work: Path, progress: TrainingProgress
    ) -> None:
        """Create the loop. batches: a loader over an Order."""
        super().__init__(runner, batches)
        self.course, self.work, self.progress = course, work, progress
        self.rank, self.world = get_dist_info()
        self.state = FitState()
        self._loss: Tensor = torch.zeros(())
        self._saved = self._shown = time.monotonic()

    @property
    def iter(self) -> int:
        """Return the number of steps so far."""
        return self.state.step

    @property
    def max_iters(self) -> int:
        return self.course.steps or sys.maxsize

    def restore(self) -> None:
        """Load the last checkpoint. Raises UsageError for one of another network."""
        self.state = load_checkpoint(self.work, self._parts(), self._device) or FitState()
        if self.state.step:
            self.progress.note(f"resumed after step {self.state.step}")

    def run(self) -> Any:
        """Train until the schedule ends.

        Raises:
            UsageError: a loss is not finite.
            KeyboardInterrupt: interrupted; the checkpoint is written.
        """
        self.runner.call_hook("before_train")
        self.restore()
        self._loss = torch.full((), self.state.loss_sum, device=self._device)
        if not self.over():
            self.progress.phase("reading photos")
            self.dataloader.dataset.fill(
                memory_budget() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            )
            self.dataloader.batch_sampler.first = self.state.step
            self.progress.phase("training")
            with Interrupts() as interrupts:
                batches = batches_of(self.dataloader)
                while not self.over():
                    self._step(batches, interrupts)
        self.runner.call_hook("after_train")
        return self.runner.model

    def over(self) -> bool:
        patience = self.course.schedule.patience
        return self._used() >= 1 or 0 < patience <= self.state.since_best

    def _used(self) -> float:
        """Return the used share of the schedule, by the first worker's clock on all workers."""
        used = self.course.used(self.state)
        if self.world == 1 or self.course.steps is not None:
            return used
        first = torch.tensor(used, dtype=torch.float64, device=self._device)
        broadcast(first)
        return float(first)

    def _step(self, batches: Any, interrupts: Interrupts) -> None:
        if self._anybody(interrupts.asked):
            self._save()
            raise KeyboardInterrupt
        state, used = self.state, self._used()
        self._finish_computing()
        began = time.monotonic()
        batch = next(batches)
        waited = time.monotonic() - began
        self._learn(batch, used)
        self._finish_computing()
        took = time.monotonic() - began
        state.step += 1
        state.loss_steps += 1
        state.seconds += took
        state.step_seconds += took
        state.waited += waited
        every = self.course.steps_an_epoch * self.course.schedule.evaluate_every
        if state.step % every == 0 or self._used() >= 1:
            self._evaluate()
        elif time.monotonic() - self._saved > SAVE_EVERY_S:
            self._save()
        if self.rank == 0 and time.monotonic() - self._shown > SHOW_EVERY_S:
            self._shown = time.monotonic()
            self.progress.step(self._now())

    def _learn(self, batch: Any, used: float) -> None:
        state, schedule = self.state, self.course.schedule
        seed = np.random.SeedSequence((self.course.seed, state.step, self.rank, 2)).generate_state(
            1
        )
        torch.manual_seed(int(seed[0]))
        for group in self.runner.optim_wrapper.param_groups:
            group["lr"] = schedule.lr * rate(schedule, state.step, used)
        self.runner.model.train()
        if self.course.frozen is not None:
            self._network.get_submodule(self.course.frozen).eval()
        self.runner.call_hook("before_train_iter", batch_idx=state.step, data_batch=batch)
        try:
            outputs = self.runner.model.train_step(batch, optim_wrapper=self.runner.optim_wrapper)
        except (RuntimeError, ValueError):
            # Some of mmdet's losses raise errors of their own on NaN.
            if not all(bool((p.abs() <= STORED).all()) for p in self._network.parameters()):
                self._checked(math.nan)
            raise
        self._loss += outputs["loss"].detach()
        self.runner.call_hook(
            "after_train_iter", batch_idx=state.step, data_batch=batch, outputs=outputs
        )

    def _evaluate(self) -> None:
        state, began = self.state, time.monotonic()
        mean = self._mean_loss()
        weights = self._averaged()
        self.progress.phase("evaluating")
        numbers = self.course.evaluate(weights)
        state.seconds += time.monotonic() - began
        point = {
            "step": state.step,
            "epoch": round(state.step / self.course.steps_an_epoch, 2),
            "minutes": round(state.seconds / 60, 2),
            "loss": round(mean, 5),
            "waited": round(self._waited, 4),
            **numbers,
        }
        state.curve.append(point)
        state.loss_steps, state.waited, state.step_seconds = 0, 0.0, 0.0
        self._loss.zero_()
        state.since_best += 1
        if point["score"] > state.best:
            state.since_best = 0
        # Among equal scores, keep the weights that have learned longest.
        if point["score"] >= state.best:
            state.best = point["score"]
            if self.rank == 0:
                write_tensors(dict(weights), self.work / BEST)
        self._save()
        if self.rank == 0:
            write_log(self.work, state.curve)
            self.progress.evaluated(point)
            self.progress.phase("training")

    def _averaged(self) -> dict[str, Tensor]:
        """Return the weights that are evaluated and kept, on the CPU.

        All workers get the first one's, because each has running statistics of its own.
        """
        average = self._average
        weights = {} if average is None else dict(average.module.state_dict())
        weights = weights or dict(self._network.state_dict())
        for value in weights.values():
            broadcast(value)
        return {name: value.detach().cpu().clone() for name, value in weights.items()}

    def _mean_loss(self) -> float:
        """Return the mean loss over all workers."""
        total = self._loss.clone()
        all_reduce(total, "mean")
        return self._checked(float(total) / max(1, self.state.loss_steps))

    def _checked(self, mean: float) -> float:
        """Return the loss, or raise UsageError if it is not finite."""
        if not math.isfinite(mean):
            lr = self.course.schedule.lr
            raise UsageError(
                f"{self.course.where}: the loss is {mean} at step {self.state.step}: the training has diverged; lower "
                f"`schedule.lr` ({lr:g}), raise `schedule.warmup`, or set `schedule.clip` = 20"
            )
        return mean

    def _save(self) -> None:
        """Save the training, on the first worker only, unless the weights are already lost.

        No worker waits for another here, because their clocks differ.
        """
        self._saved = time.monotonic()
        self.state.loss_sum = self._checked(float(self._loss))
        if self.rank == 0:
            save_checkpoint(self.work, self._parts(), self.state)

    def _parts(self) -> dict[str, Any]:
        """Return the parts of a checkpoint."""
        parts = {"network": self._network, "optimiser": self.runner.optim_wrapper}
        return parts | ({} if self._average is None else {"average": self._average})

    def _anybody(self, asked: bool) -> bool:
        if self.world == 1:
            return asked
        wish = torch.tensor(float(asked), device=self._device)
        all_reduce(wish, "max")
        return bool(wish)

    def _finish_computing(self) -> None:
        """Wait for the GPU, whose work would otherwise be counted as waiting for data."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    @property
    def _network(self) -> Any:
        model = self.runner.model
        return getattr(model, "module", model)

    @property
    def _average(self) -> Any:
        """Return EMAHook's model, or None if nothing is averaged."""
        return next(
            (hook.ema_model for hook in self.runner.hooks if hasattr(hook, "ema_model")), None
        )

    @property
    def _device(self) -> torch.device:
        return next(self._network.parameters()).device

    @property
    def _waited(self) -> float:
        return self.state.waited / max(self.state.step_seconds, 1e-9)

    def _now(self) -> TrainingStep:
        state, used = self.state, self.course.used(self.state)
        return TrainingStep(
            step=state.step,
            steps=self.course.steps,
            epoch=state.step // self.course.steps_an_epoch + 1,
            loss=float(self._loss) / max(1, state.loss_steps),
            best=state.best if state.curve else None,
            waited=self._waited,
            left_s=state.seconds / used * (1 - used) if used > 0 else None,
        )
