"""Let an mmdet model learn: mmdet gives the model and its loss, mmengine the averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mmengine.dist import broadcast
from mmengine.model import MMDistributedDataParallel, MomentumAnnealingEMA
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import Tensor, nn

from skinbatch.train.fitting.course import Weights
from skinbatch.train.fitting.device import rank
from skinbatch.train.fitting.optimiser import make_optimiser, rate
from skinbatch.train.recipe_sections import ScheduleSection

# The averaged weights follow quickly at first, so that the start is soon forgotten: after n steps
# by at least 9 / (9 + n).
GAMMA = 9
# Larger weights do not fit into a pack.
STORED = torch.finfo(torch.float16).max


class DetectorLearner:
    """Implement `Learner` with one mmdet model.

    Torch's generator is seeded anew in every step, so a training that is resumed has the same
    random numbers as one that was not interrupted.
    """

    usual_clip = 20.0

    def __init__(
        self,
        model: nn.Module,
        schedule: ScheduleSection,
        evaluate: Callable[[Weights], Mapping[str, float]],
        *,
        seed: int,
        device: torch.device,
        mixed: bool,
        frozen: str | None = None,
    ) -> None:
        """Place the model on the device, and create its optimiser.

        Args:
            model: with its weights, its `data_preprocessor` and its frozen part.
            schedule: of the training.
            evaluate: called with averaged weights by all workers, which get the same numbers.
            seed: of the training.
            device: where it learns.
            mixed: fp16 where it is safe.
            frozen: name of a part of the model that does not learn.
        """
        self.device = device
        self.loss = torch.zeros((), device=device)
        self._schedule, self._evaluate = schedule, evaluate
        self._seed, self._frozen = seed, frozen
        self._network = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._learner: Any = self._network
        if dist.is_initialized():
            self._learner = MMDistributedDataParallel(
                module=self._network,
                device_ids=[device.index] if device.type == "cuda" else None,
                find_unused_parameters=False,
            )

        clip = {"max_norm": schedule.clip} if schedule.clip else None
        kind = AmpOptimWrapper if mixed else OptimWrapper
        self._optimiser = kind(optimizer=make_optimiser(self._network, schedule), clip_grad=clip)
        self._average: Any = None
        if schedule.ema:
            self._average = MomentumAnnealingEMA(
                self._network, momentum=1 - schedule.ema, gamma=GAMMA, update_buffers=True
            )
        self._weights: Weights = {}

    def parts(self) -> dict[str, Any]:
        """Return what a checkpoint holds, by name."""
        parts = {"network": self._network, "optimiser": self._optimiser}
        return parts | ({} if self._average is None else {"average": self._average})

    def learn(self, batch: Any, step: int, used: float) -> None:
        """Take one step and add its loss.

        Raises FloatingPointError if the weights are lost.
        """
        sequence = np.random.SeedSequence((self._seed, step, rank(), 2))
        torch.manual_seed(int(sequence.generate_state(1)[0]))
        for group in self._optimiser.param_groups:
            group["lr"] = self._schedule.lr * rate(self._schedule, step, used)
        self._learner.train()
        if self._frozen is not None:
            self._network.get_submodule(self._frozen).eval()

        try:
            outputs = self._learner.train_step(batch, optim_wrapper=self._optimiser)
        except (RuntimeError, ValueError) as e:
            # Some of mmdet's losses raise errors of their own on NaN.
            if not all(bool((p.abs() <= STORED).all()) for p in self._network.parameters()):
                raise FloatingPointError(str(e)) from e
            raise
        self.loss += outputs["loss"].detach()
        if self._average is not None:
            self._average.update_parameters(self._network)
        if self.device.type == "cuda":
            # Its work would otherwise be counted as waiting for data.
            torch.cuda.synchronize(self.device)

    def evaluate(self) -> Mapping[str, float]:
        """Return the numbers of the averaged weights, or of the network's own."""
        self._weights = self._averaged()
        return self._evaluate(self._weights)

    def weights(self) -> Weights:
        """Return the weights that were evaluated last, on the CPU."""
        return self._weights

    def _averaged(self) -> dict[str, Tensor]:
        """Return the weights to evaluate and keep, on the CPU.

        All workers get the first one's, because each has running statistics of its own.
        """
        network = self._network if self._average is None else self._average.module
        weights = dict(network.state_dict())
        for value in weights.values():
            broadcast(value)
        return {name: value.detach().cpu().clone() for name, value in weights.items()}
