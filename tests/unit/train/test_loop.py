"""The training loop: learns, stops, resumes where it was, and leaves what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from skinbatch.train import loop
from skinbatch.train.loop import Budget, finish, fit, load_best


class Line:
    """Learns y = 3 x. scores: what the evaluations say instead of the error, if given."""

    def __init__(self, scores: list[float] | None = None) -> None:
        self.scores = scores
        self.evaluations = 0

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy(rng.normal(size=(16, 1)).astype(np.float32))
        return x, 3 * x

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(network(x), y)

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        self.evaluations += 1
        if self.scores is not None:
            return {"score": self.scores[self.evaluations - 1]}
        weight = next(network.parameters())
        return {"score": -abs(float(weight.detach()) - 3)}


def line() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(1, 1, bias=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """One second a look, so that a budget is a number of steps on every machine."""
    seconds = [0.0]

    def tick() -> float:
        seconds[0] += 1
        return seconds[0]

    monkeypatch.setattr(loop, "_clock", tick)
    return seconds


BUDGET = Budget(minutes=4, every=20, lr=0.1, weight_decay=0.0, average=0.9)


def test_it_learns_and_keeps_the_best_averaged_weights(tmp_path: Path, clock: list[float]) -> None:
    result = fit(line(), Line(), BUDGET, tmp_path)
    assert float(next(load_best(line(), tmp_path).parameters())) == pytest.approx(3, abs=0.05)
    assert result["stopped"] == "time ran out"
    logged = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert logged == result["curve"]
    assert [point["step"] for point in logged[:3]] == [20, 40, 60]


def test_it_stops_after_so_many_evaluations_without_improvement(tmp_path: Path, clock: list[float]) -> None:
    task = Line([0.1, 0.5, 0.4, 0.5, 0.3, 0.2, 0.1, 0.9])
    result = fit(line(), task, BUDGET, tmp_path)
    assert task.evaluations == 7
    assert result["stopped"] == "5 evaluations without improvement"


def test_stopped_and_resumed_it_ends_where_it_would_have_ended(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(line(), Line(), BUDGET, tmp_path / "whole")

    class Killed(Exception):
        pass

    interrupted = Line()
    draw = interrupted.batch
    calls = iter(range(1000))

    def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        if next(calls) == 50:
            raise Killed
        return draw(rng)

    monkeypatch.setattr(interrupted, "batch", batch)
    with pytest.raises(Killed):
        fit(line(), interrupted, BUDGET, tmp_path / "parts")
    resumed = fit(line(), Line(), BUDGET, tmp_path / "parts")
    assert resumed["curve"] == whole["curve"]
    assert resumed["steps"] == whole["steps"]


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Line()
    monkeypatch.setattr(task, "loss", lambda network, x, y: network(x).sum() * float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        fit(line(), task, BUDGET, tmp_path)


def test_what_is_left_is_half_precision_weights_and_a_record(tmp_path: Path) -> None:
    finish(line(), tmp_path, "segmenter", {"arch": "line"})
    assert load_file(tmp_path / "segmenter.safetensors")["weight"].dtype == torch.float16
    assert json.loads((tmp_path / "segmenter.json").read_text()) == {"stage": "segmenter", "arch": "line"}
