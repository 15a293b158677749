"""One training loop for small networks: seeded, resumable, with averaged weights, early stopping and a curve."""

from __future__ import annotations

import json
import math
import time
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from skinbatch.models.weights import save_weights
from skinbatch.train.device import processor

SEED = 2019


class Task(Protocol):
    """What is learned. `batch` draws a training batch, `loss` judges the network on it, `evaluate` measures the
    averaged network on the validation photos; its `score` is what has to grow."""

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]: ...

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor: ...

    def evaluate(self, network: nn.Module) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Budget:
    """minutes: processor time over all resumptions, divided by the threads, so that a busy machine does not cut the
    training short. every: steps between evaluations. patience: evaluations without
    improvement before it stops. lr: the highest learning rate; it warms up, then falls with the time that is left."""

    minutes: float
    every: int
    patience: int = 5
    lr: float = 2e-3
    weight_decay: float = 1e-2
    average: float = 0.995


@dataclass(slots=True)
class _State:
    """Everything a checkpoint holds besides the networks."""

    step: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    since_best: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)


def fit(network: nn.Module, task: Task, budget: Budget, work: Path) -> dict[str, Any]:
    """Train until the time is up or validation has stopped improving; carry on from `work/checkpoint.pt` if there is
    one. Leaves `work/best.pt` (averaged weights) and `work/log.jsonl`. Returns curve, steps, seconds, stop reason."""
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=budget.lr, weight_decay=budget.weight_decay)
    state = _resume(network, average, optimiser, work / "checkpoint.pt")
    total = budget.minutes * 60
    losses: list[float] = []
    while state.seconds < total and state.since_best < budget.patience:
        began = _clock()
        rng = np.random.default_rng((SEED, state.step))
        torch.manual_seed(SEED + state.step)
        for group in optimiser.param_groups:
            group["lr"] = budget.lr * _schedule(state.step, state.seconds / total)
        losses.append(_step(network.train(), task, optimiser, rng))
        state.step += 1
        _follow(average, network, min(budget.average, state.step / (state.step + 10)))
        state.seconds += _clock() - began
        if state.step % budget.every == 0 or state.seconds >= total:
            began = _clock()
            _evaluate(average, task, state, float(np.mean(losses)), work)
            losses.clear()
            state.seconds += _clock() - began
            _save(network, average, optimiser, state, work / "checkpoint.pt")
    return {
        "curve": state.curve,
        "steps": state.step,
        "seconds": round(state.seconds),
        "stopped": "time ran out" if state.seconds >= total else f"{budget.patience} evaluations without improvement",
        "seed": SEED,
        "hardware": processor(),
    }


def finish(network: nn.Module, work: Path, stage: str, result: dict[str, Any]) -> None:
    """Write `work/<stage>.safetensors` (fp16) and `work/<stage>.json`."""
    save_weights(network, work / f"{stage}.safetensors")
    text = json.dumps({"stage": stage} | result, indent=2)
    (work / f"{stage}.json").write_text(text + "\n", encoding="utf-8")


def load_best(network: nn.Module, work: Path) -> nn.Module:
    """The averaged weights of the best evaluation, as they will be on disk: rounded to half precision."""
    weights = torch.load(work / "best.pt", weights_only=True)
    network.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in weights.items()})
    return network.eval()


def _clock() -> float:
    return time.process_time() / torch.get_num_threads()


def _schedule(step: int, used: float) -> float:
    return min(1.0, (step + 1) / 100) * (0.02 + 0.98 * (1 + math.cos(math.pi * min(1.0, used))) / 2)


def _step(network: nn.Module, task: Task, optimiser: torch.optim.Optimizer, rng: np.random.Generator) -> float:
    x, y = task.batch(rng)
    loss = task.loss(network, x, y)
    if not torch.isfinite(loss):
        raise FloatingPointError("the training loss is not finite; lower the learning rate")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    return float(loss.detach())


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


def _evaluate(average: nn.Module, task: Task, state: _State, loss: float, work: Path) -> None:
    with torch.inference_mode():
        metrics = task.evaluate(average.eval())
    point = {"step": state.step, "minutes": round(state.seconds / 60, 2), "loss": round(loss, 4), **metrics}
    state.curve.append(point)
    state.since_best += 1
    if metrics["score"] > state.best:
        state.best, state.since_best = metrics["score"], 0
        _write(average.state_dict(), work / "best.pt")
    with (work / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(point) + "\n")
    print(json.dumps(point), flush=True)


def _save(network: nn.Module, average: nn.Module, optimiser: Any, state: _State, path: Path) -> None:
    plain = {name: getattr(state, name) for name in _State.__slots__}
    _write(
        {
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimiser": optimiser.state_dict(),
            "state": plain,
        },
        path,
    )


def _resume(network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, path: Path) -> _State:
    if not path.exists():
        return _State()
    kept = torch.load(path, weights_only=True)
    network.load_state_dict(kept["network"])
    average.load_state_dict(kept["average"])
    optimiser.load_state_dict(kept["optimiser"])
    return _State(**kept["state"])


def _write(value: Any, path: Path) -> None:
    partial = path.with_suffix(".partial")
    torch.save(value, partial)
    partial.replace(path)
