"""Choose the size of a training's steps: the optimiser, its learning rate, and averaged weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from skinbatch.train.recipe_sections import ScheduleSection

# The share of the highest learning rate that a schedule with decay `cosine` ends at.
_LOWEST = 0.01


def rate(schedule: ScheduleSection, step: int, used: float) -> float:
    """Return the share of the highest learning rate. used: share of the schedule, 0-1."""
    warm = min(1.0, (step + 1) / schedule.warmup) if schedule.warmup else 1.0
    if schedule.decay == "constant":
        return warm
    fallen = max(0.0, min(1.0, used) - schedule.hold) / (1 - schedule.hold)
    return warm * (_LOWEST + (1 - _LOWEST) * (1 + math.cos(math.pi * fallen)) / 2)


def make_optimiser(network: nn.Module, schedule: ScheduleSection) -> torch.optim.Optimizer:
    """Create an optimiser over the trained parameters, without weight decay on norms and biases."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if schedule.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=schedule.lr, momentum=schedule.momentum)
    if schedule.optimiser == "rmsprop":
        # Keras's values: its average forgets faster, and it has no momentum of its own.
        return torch.optim.RMSprop(groups, lr=schedule.lr, alpha=0.9, eps=1e-7)
    kind = torch.optim.AdamW if schedule.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, lr=schedule.lr)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the network's."""
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)
