"""Build mmengine's Runner for one detector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import EMAHook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner
from torch import nn

from skinbatch.train.detection.loop import Course, TrainLoop
from skinbatch.train.fitting.optimiser import make_optimiser
from skinbatch.train.fitting.progress import TrainingProgress

# The averaged weights follow quickly at first, so that the start is soon forgotten: after n steps
# by at least 9 / (9 + n).
GAMMA = 9
# Default hooks whose work TrainLoop does. Its checkpoints are exact to the step, and reading them
# runs no code.
_NOT_NEEDED = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")


@dataclass(frozen=True, slots=True)
class Setting:
    """Hold where a training runs.

    mixed: fp16 where it is safe. distributed: torch.distributed is initialised.
    """

    device: torch.device
    mixed: bool
    distributed: bool


class DetectorRunner(Runner):
    """Train a model that has its weights, its `data_preprocessor` and its frozen parts already."""

    def __init__(
        self,
        model: nn.Module,
        batches: Any,
        course: Course,
        setting: Setting,
        work: Path,
        progress: TrainingProgress,
    ) -> None:
        self._course, self._setting, self._folder, self._progress = course, setting, work, progress
        self._batches = batches
        schedule = course.schedule
        learner = self._placed(model)
        clip = {"max_norm": schedule.clip} if schedule.clip else None
        kind = AmpOptimWrapper if setting.mixed else OptimWrapper
        hooks = []
        if schedule.ema:
            hooks.append(
                EMAHook(
                    "MomentumAnnealingEMA",
                    momentum=1 - schedule.ema,
                    gamma=GAMMA,
                    update_buffers=True,
                )
            )
        super().__init__(
            model=learner,
            work_dir=str(work / "mmengine"),
            train_dataloader=batches,
            train_cfg={"type": TrainLoop},
            optim_wrapper=kind(optimizer=make_optimiser(model, schedule), clip_grad=clip),
            default_hooks=dict.fromkeys(_NOT_NEEDED),
            custom_hooks=hooks,
            launcher="pytorch" if setting.distributed else "none",
            randomness={"seed": course.seed},
            log_level="ERROR",
            default_scope="mmdet",
        )

    def build_train_loop(self, loop: Any) -> TrainLoop:
        """Build the loop once; mmengine asks for it again and again."""
        if isinstance(loop, TrainLoop):
            return loop
        return TrainLoop(self, self._batches, self._course, self._folder, self._progress)

    def wrap_model(self, model_wrapper_cfg: Any, model: nn.Module) -> nn.Module:
        """Return the model unchanged: mmengine would move it to a GPU if there is one."""
        return model

    def _placed(self, model: nn.Module) -> nn.Module:
        device = self._setting.device
        model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if not self._setting.distributed:
            return model
        wrapped: nn.Module = MMDistributedDataParallel(
            module=model,
            device_ids=[device.index] if device.type == "cuda" else None,
            find_unused_parameters=False,
        )
        return wrapped
