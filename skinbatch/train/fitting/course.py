"""Follow a schedule: take steps, evaluate, save and end, in the same way for every stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from skinbatch.errors import UsageError
from skinbatch.train.fitting.device import rank, world
from skinbatch.train.fitting.interrupt import Interrupts
from skinbatch.train.fitting.progress import TrainingProgress, TrainingStep
from skinbatch.train.fitting.saved_state import (
    FitState,
    load_checkpoint,
    save_checkpoint,
    write_log,
    write_tensors,
)
from skinbatch.train.recipe_sections import ScheduleSection

Weights = Mapping[str, Tensor]

BEST = "best.pt"
SAVE_EVERY_S = 60.0
SHOW_EVERY_S = 1.0


class Learner(Protocol):
    """Describe what learns.

    Attributes:
        device: where it learns.
        loss: the sum of the losses since it was last set to zero, on the device: asking for the
            number would wait for the GPU in every step.
        usual_clip: a value of `schedule.clip` that may help if a training diverges.
    """

    usual_clip: float

    @property
    def device(self) -> torch.device: ...

    @property
    def loss(self) -> Tensor: ...

    def parts(self) -> dict[str, Any]:
        """Return what a checkpoint holds, by name."""

    def learn(self, batch: Any, step: int, used: float) -> None:
        """Take one step and add its loss. used: share of the schedule that is over.

        Raises FloatingPointError if the weights are lost.
        """

    def evaluate(self) -> Mapping[str, float]:
        """Return numbers about the validation photos, of which `score` should grow.

        All workers call it, and the first one's numbers count.
        """

    def weights(self) -> Weights:
        """Return the weights that were evaluated last."""


class Course:
    """Lead a learner through its schedule, from the last checkpoint in `work` if there is one.

    `checkpoint.pt`, `best.pt` and `log.jsonl` are left in `work`. With several workers
    (torch.distributed is initialised) all of them do this together. The first one's clock counts,
    and only the first one writes.
    """

    def __init__(
        self,
        schedule: ScheduleSection,
        steps_per_epoch: int,
        learner: Learner,
        work: Path,
        progress: TrainingProgress,
        *,
        where: str,
        title: str = "training",
    ) -> None:
        """Load the checkpoint. Raises UsageError for one of another network.

        Args:
            schedule: of the training.
            steps_per_epoch: of the optimiser.
            learner: what learns.
            work: the training's folder.
            progress: receives phases, numbers and notes.
            where: the recipe, for messages.
            title: the training in a few words.
        """
        self.schedule, self.steps_per_epoch, self.learner = schedule, steps_per_epoch, learner
        self.work, self.progress, self.where, self.title = work, progress, where, title
        self.world, self.rank = world(), rank()
        self._clock = _Clock()
        self.state = load_checkpoint(work, learner.parts(), learner.device) or FitState()
        if self.state.step:
            progress.note(f"resumed after step {self.state.step}")

    def run(self, batches_from: Callable[[int], Iterator[Any]]) -> None:
        """Train until the schedule ends or validation stops improving.

        batches_from: returns the batches from a step on, without end.

        Raises:
            UsageError: a loss is not finite.
            KeyboardInterrupt: interrupted; the checkpoint is written.
        """
        if self.over():
            return
        self.progress.phase(self.title)
        self.learner.loss.fill_(self.state.loss_sum)
        with Interrupts() as interrupts:
            batches = batches_from(self.state.step)
            # The first batch comes when the loader's processes have started. That is not part of
            # any step.
            first = [next(batches)]
            while True:
                used = self.used()
                if self._anybody(interrupts.asked):
                    self._save()
                    raise KeyboardInterrupt

                self._step(first or batches, used)
                every = self.steps_per_epoch * self.schedule.evaluate_every
                if self.state.step % every == 0 or self.used() >= 1:
                    self._evaluate()
                    if self.over():
                        return
                elif self._clock.due("save", SAVE_EVERY_S):
                    self._save()
                if self.rank == 0 and self._clock.due("show", SHOW_EVERY_S):
                    self.progress.step(self._now())

    @property
    def steps(self) -> int | None:
        """Return the total number of steps; None if minutes decide."""
        if self.schedule.epochs is not None:
            return self.schedule.epochs * self.steps_per_epoch
        return self.schedule.iterations

    def used(self) -> float:
        """Return the share of the schedule that is over, the same on all workers."""
        share = self._own_share()
        if self.world == 1 or self.steps is not None:
            return share
        first = torch.tensor(share, dtype=torch.float64, device=self.learner.device)
        dist.broadcast(first, 0)
        return float(first)

    def over(self) -> bool:
        """Return whether the schedule has ended, or the score has not risen for too long."""
        return self.used() >= 1 or 0 < self.schedule.patience <= self.state.since_best

    def reason(self) -> str:
        """Return why the training has ended, in words."""
        if self.used() >= 1:
            return "the schedule was over"
        return f"the score did not rise for {self.schedule.patience} evaluations"

    def checked(self, mean: float) -> float:
        """Return a loss. Raises UsageError if it is not finite."""
        if not math.isfinite(mean):
            raise UsageError(
                f"{self.where}: the loss is {mean} at step {self.state.step}: the training has diverged; lower "
                f"`schedule.lr` ({self.schedule.lr:g}), raise `schedule.warmup`, or set `schedule.clip` = "
                f"{self.learner.usual_clip:g}"
            )
        return mean

    def _own_share(self) -> float:
        """Return the share of the schedule that is over by this worker's clock."""
        if self.steps is not None:
            return self.state.step / self.steps
        assert self.schedule.minutes is not None
        return self.state.seconds / (60 * self.schedule.minutes)

    def _anybody(self, asked: bool) -> bool:
        """Return whether any worker was asked to stop."""
        if self.world == 1:
            return asked
        wish = torch.tensor(float(asked), device=self.learner.device)
        dist.all_reduce(wish, dist.ReduceOp.MAX)
        return bool(wish)

    def _step(self, batches: list[Any] | Iterator[Any], used: float) -> None:
        state, began = self.state, time.monotonic()
        batch = batches.pop() if isinstance(batches, list) else next(batches)
        waited = time.monotonic() - began
        try:
            self.learner.learn(batch, state.step, used)
        except FloatingPointError:
            self.checked(math.nan)
        took = time.monotonic() - began

        state.step += 1
        state.loss_steps += 1
        state.seconds += took
        state.step_seconds += took
        state.waited += waited

    def _evaluate(self) -> None:
        state, began = self.state, time.monotonic()
        mean = self._mean_loss()
        if self.rank == 0:
            self.progress.phase("evaluating")
        numbers = self.learner.evaluate()
        point = self._from_first(
            {
                "step": state.step,
                "epoch": round(state.step / self.steps_per_epoch, 2),
                "minutes": round((state.seconds + time.monotonic() - began) / 60, 2),
                "loss": round(mean, 5),
                "waited": round(self._waited, 4),
                **numbers,
            }
        )
        state.curve.append(point)
        state.loss_steps, state.waited, state.step_seconds = 0, 0.0, 0.0
        self.learner.loss.zero_()

        state.since_best += 1
        if point["score"] > state.best or len(state.curve) == 1:
            state.since_best = 0
        # Among equal scores, keep the weights that have learned longest.
        if point["score"] >= state.best or len(state.curve) == 1:
            state.best = point["score"]
            if self.rank == 0:
                write_tensors(dict(self.learner.weights()), self.work / BEST)

        state.seconds += time.monotonic() - began
        self._save()
        if self.rank == 0:
            write_log(self.work, state.curve)
            self.progress.evaluated(point)
            self.progress.phase(self.title)

    def _from_first(self, point: dict[str, float]) -> dict[str, float]:
        if self.world == 1:
            return point
        sent: list[Any] = [point]
        dist.broadcast_object_list(sent, 0)
        received: dict[str, float] = sent[0]
        return received

    def _mean_loss(self) -> float:
        """Return the mean loss since the last evaluation, over all workers."""
        total = self.learner.loss.clone()
        if self.world > 1:
            dist.all_reduce(total)
        return self.checked(float(total) / self.world / max(1, self.state.loss_steps))

    def _save(self) -> None:
        """Save the training, on the first worker only, unless the weights are already lost.

        No worker waits for another here, because their clocks differ.
        """
        self._clock.restart("save")
        self.state.loss_sum = float(self.learner.loss)
        self.checked(self.state.loss_sum / max(1, self.state.loss_steps))
        if self.rank == 0:
            save_checkpoint(self.work, self.learner.parts(), self.state)

    @property
    def _waited(self) -> float:
        return self.state.waited / max(self.state.step_seconds, 1e-9)

    def _now(self) -> TrainingStep:
        state, used = self.state, self._own_share()
        return TrainingStep(
            step=state.step,
            steps=self.steps,
            epoch=state.step // self.steps_per_epoch + 1,
            loss=float(self.learner.loss) / max(1, state.loss_steps),
            best=state.best if state.curve else None,
            waited=self._waited,
            left_s=state.seconds / used * (1 - used) if used > 0 else None,
        )


class _Clock:
    """Remember when something was last done."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {"save": time.monotonic()}

    def due(self, what: str, every: float) -> bool:
        """Return whether it is time again; if so, the time starts anew."""
        now = time.monotonic()
        if now - self._last.get(what, -math.inf) < every:
            return False
        self._last[what] = now
        return True

    def restart(self, what: str) -> None:
        self._last[what] = time.monotonic()
