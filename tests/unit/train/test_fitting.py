"""Test the loop of segmenters and classifiers: it learns, stops, resumes at the step, and leaves its measurements."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from skinbatch.errors import UsageError
from skinbatch.train.fitting import course, device
from skinbatch.train.fitting.loop import FitPlan, Fitted, fit
from skinbatch.train.fitting.optimiser import rate
from skinbatch.train.fitting.progress import SilentProgress, TrainingStep
from skinbatch.train.fitting.saved_state import load_checkpoint, read_best
from skinbatch.train.photos.samples import Stream
from skinbatch.train.recipe_sections import RunSection, ScheduleSection

RUN = RunSection(device="cpu", threads=1, loader_threads=0)


class Brightness:
    """Give photos of one grey each, to learn how bright they are. Implements Samples."""

    def __init__(self, photos: int = 20) -> None:
        self.photos = photos
        self.drawn: list[int] = []

    def __len__(self) -> int:
        return self.photos

    def sample(
        self, index: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        self.drawn.append(index)
        grey = int(rng.integers(0, 256))
        return np.full((4, 4, 3), grey, np.uint8), np.array([grey / 255], np.float32)


class BrightnessTask:
    """Learn brightness.

    scores: the results of evaluations, if given, one after the other. kill: a signal to send at a
    step.
    """

    def __init__(self, scores: list[float] | None = None, stop_at: int | None = None) -> None:
        self.samples = Brightness()
        self.scores, self.evaluations, self.stop_at, self.losses = scores, 0, stop_at, 0

    def prepare(self, photos: Tensor) -> Tensor:
        return photos.permute(0, 3, 1, 2).float() / 255

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        self.losses += 1
        if self.losses == self.stop_at:
            signal.raise_signal(signal.SIGINT)
        return nn.functional.mse_loss(network(x), y)

    def evaluate(self, network: nn.Module, device: torch.device) -> Mapping[str, float]:
        self.evaluations += 1
        if self.scores is not None:
            return {"score": self.scores[self.evaluations - 1]}
        x = torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
        off = float((network(x)[:, 0] - torch.tensor([0.1, 0.5, 0.9])).abs().mean())
        return {"score": 1 - off}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(16, 1),
    )


def train(task: BrightnessTask, work: Path, **how: object) -> Fitted:
    schedule = ScheduleSection.model_validate(
        {"epochs": 12, "batch": 6, "lr": 0.02, "ema": 0.9, "warmup": 3} | how
    )
    return fit(network(), task, FitPlan(schedule, RUN, 5, "recipe.toml"), work, SilentProgress())


def learned(fitted: Fitted) -> list[dict[str, float]]:
    """Return the curve without what depends on the clock."""
    return [
        {k: v for k, v in point.items() if k not in ("minutes", "waited")} for point in fitted.curve
    ]


def test_it_learns_and_keeps_the_weights_of_the_best_evaluation(tmp_path: Path) -> None:
    fitted = train(BrightnessTask(), tmp_path)
    assert fitted.curve[-1]["loss"] < fitted.curve[0]["loss"] / 3
    best = network()
    best.load_state_dict(dict(fitted.weights))
    with torch.no_grad():
        score = BrightnessTask().evaluate(best.eval(), torch.device("cpu"))["score"]
    assert score == pytest.approx(max(point["score"] for point in fitted.curve), abs=1e-5)
    assert score > 0.8
    assert (fitted.steps, fitted.stopped) == (36, "the schedule was over")
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert logged == list(fitted.curve)
    assert [point["epoch"] for point in logged[:2]] == [1, 2]
    assert all(0 <= point["waited"] <= 1 for point in logged)


@pytest.mark.parametrize("has_bf16", [True, False])
def test_bf16_is_used_where_the_processor_has_it_and_learns_as_well(
    has_bf16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched(BrightnessTask):
        def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            types.add(network(x).dtype)
            return super().loss(lambda given: network(given).float(), x, y)  # type: ignore[arg-type]

    types: set[torch.dtype] = set()
    monkeypatch.setattr(device, "computes_bf16", lambda name: has_bf16)
    schedule = ScheduleSection(epochs=12, batch=6, lr=0.02, ema=0.9, warmup=3)
    run = RUN.model_copy(update={"precision": "bf16"})
    plan = FitPlan(schedule, run, 5, "recipe.toml")
    fitted = fit(network(), Watched(), plan, tmp_path, SilentProgress())

    assert types == {torch.bfloat16 if has_bf16 else torch.float32}
    assert fitted.curve[-1]["loss"] < fitted.curve[0]["loss"] / 3
    assert all(value.dtype != torch.bfloat16 for value in fitted.weights.values())


def test_of_equal_evaluations_the_one_that_has_learned_longest_is_kept_and_is_no_improvement(
    tmp_path: Path,
) -> None:
    for scores, kept in (([0.0, 0.0, 0.0, 0.0], 4), ([0.2, 0.5, 0.5, 0.4, 0.4], 3)):
        folder = tmp_path / str(kept)
        fitted = train(BrightnessTask(scores), folder, patience=3)
        assert (fitted.stopped, len(fitted.curve)) == (
            "the score did not rise for 3 evaluations",
            len(scores),
        )
        until = train(
            BrightnessTask([0.1 * n for n in range(kept)]),
            folder / "until",
            epochs=kept,
            decay="constant",
        )
        same = train(BrightnessTask(scores), folder / "same", patience=3, decay="constant")
        assert all(torch.equal(same.weights[name], value) for name, value in until.weights.items())


def test_it_stops_when_validation_no_longer_improves(tmp_path: Path) -> None:
    task = BrightnessTask([0.1, 0.5, 0.4, 0.5, 0.3, 0.9])
    fitted = train(task, tmp_path, patience=3)
    assert task.evaluations == 5
    assert fitted.stopped == "the score did not rise for 3 evaluations"


@pytest.mark.parametrize("length", [{"epochs": 12}, {"iterations": 35, "epochs": None}])
def test_interrupted_at_any_step_and_resumed_it_ends_as_if_undisturbed(
    tmp_path: Path, length: dict[str, object]
) -> None:
    whole = train(BrightnessTask(), tmp_path / "whole", **length)
    for stop_at in (8, 10):  # after 8 steps, within an epoch, and after 18, at the end of one
        with pytest.raises(KeyboardInterrupt):
            train(BrightnessTask(stop_at=stop_at), tmp_path / "parts", **length)
    resumed = train(BrightnessTask(), tmp_path / "parts", **length)
    assert learned(resumed) == learned(whole)
    assert all(torch.equal(resumed.weights[name], value) for name, value in whole.weights.items())


def test_a_training_that_is_done_is_not_trained_again(tmp_path: Path) -> None:
    first = train(BrightnessTask(), tmp_path)
    task = BrightnessTask()
    again = train(task, tmp_path)
    assert task.losses == 0
    assert learned(again) == learned(first)


def test_minutes_are_on_the_clock_and_over_all_resumptions(tmp_path: Path) -> None:
    fitted = train(BrightnessTask(), tmp_path, epochs=None, minutes=0.01)
    assert 0.6 <= fitted.seconds < 20
    assert fitted.stopped == "the schedule was over"


def test_a_loss_that_is_not_finite_is_told_with_the_settings_to_change(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"recipe.toml: the loss is .* lower `schedule.lr` \(1e\+20\)"
    ):
        train(BrightnessTask(), tmp_path, lr=1e20, optimiser="sgd", ema=0.0, warmup=0)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("data", [b"", b"no checkpoint", b"PK\x03\x04"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(data)
    with pytest.raises(UsageError, match=r"checkpoint.pt: is not a checkpoint"):
        load_checkpoint(tmp_path, {}, torch.device("cpu"))
    for name in ("gone.pt", "checkpoint.pt"):
        with pytest.raises(UsageError, match=rf"{name}: cannot be read .* remove"):
            read_best(tmp_path / name)


def test_a_checkpoint_of_another_network_is_named(tmp_path: Path) -> None:
    train(BrightnessTask(), tmp_path, epochs=1)
    plan = FitPlan(ScheduleSection(epochs=1, batch=6, ema=0.9), RUN, 5, "recipe.toml")
    with pytest.raises(UsageError, match=r"checkpoint.pt: is not a checkpoint of this training"):
        fit(
            nn.Sequential(nn.Flatten(), nn.Linear(48, 1)),
            BrightnessTask(),
            plan,
            tmp_path,
            SilentProgress(),
        )


def test_one_photo_a_step_is_too_few_for_batch_norm(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"schedule.batch.*two photos"):
        train(BrightnessTask(), tmp_path, batch=1)


def test_frozen_layers_keep_weights_and_running_statistics(tmp_path: Path) -> None:
    frozen = network()
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    frozen[0].requires_grad_(False)  # type: ignore[index]
    frozen[1].requires_grad_(False)  # type: ignore[index]
    plan = FitPlan(ScheduleSection(epochs=3, batch=6, lr=0.02), RUN, 5, "recipe.toml")
    fitted = fit(frozen, BrightnessTask(), plan, tmp_path, SilentProgress())
    changed = {
        name for name, value in fitted.weights.items() if not torch.equal(value, before[name])
    }
    assert changed == {"5.weight", "5.bias"}


def test_steps_and_evaluations_are_told(tmp_path: Path) -> None:
    class Heard(SilentProgress):
        def __init__(self) -> None:
            self.steps: list[TrainingStep] = []
            self.points: list[Mapping[str, float]] = []

        def step(self, now: TrainingStep) -> None:
            self.steps.append(now)

        def evaluated(self, point: Mapping[str, float]) -> None:
            self.points.append(point)

    heard = Heard()
    fitted = fit(
        network(),
        BrightnessTask(),
        FitPlan(ScheduleSection(epochs=2, batch=6), RUN, 5, ""),
        tmp_path,
        heard,
    )
    assert heard.points == list(fitted.curve)
    assert (heard.steps[0].step, heard.steps[0].steps) == (1, 6)


def one_of_two(rank: int, work: Path, length: dict[str, object]) -> None:
    """Run one of two workers in a process of its own."""
    # Clocks differ, so each save belongs to one process.
    course.SAVE_EVERY_S = 0.0 if rank else 3600.0
    dist.init_process_group("gloo", init_method=f"file://{work}/meeting", rank=rank, world_size=2)
    fitted = train(BrightnessTask(), work, **length)
    torch.save(
        {"weights": dict(fitted.weights), "curve": list(fitted.curve)}, work / f"seen-by-{rank}.pt"
    )
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "length",
    [{"epochs": 12, "evaluate_every": 3}, {"epochs": None, "minutes": 0.02}],
    ids=["epochs", "minutes"],
)
def test_two_workers_train_one_network_together(tmp_path: Path, length: dict[str, object]) -> None:
    processes = [
        get_context("fork").Process(target=one_of_two, args=(rank, tmp_path, length))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    first, second = (
        torch.load(tmp_path / f"seen-by-{rank}.pt", weights_only=True) for rank in range(2)
    )
    assert first["curve"] == second["curve"]
    assert first["curve"][-1]["loss"] < first["curve"][0]["loss"]
    assert all(
        torch.equal(first["weights"][name], value) for name, value in second["weights"].items()
    )


def test_the_learning_rate_rises_and_then_falls_to_a_hundredth() -> None:
    schedule = ScheduleSection(epochs=1, warmup=10)
    assert rate(schedule, 0, 0.0) == pytest.approx(0.1)
    assert rate(schedule, 10, 0.5) == pytest.approx(0.505)
    assert rate(schedule, 99, 1.0) == pytest.approx(0.01)
    assert rate(ScheduleSection(epochs=1, decay="constant"), 99, 1.0) == 1


def test_a_rate_that_is_held_falls_only_afterwards_and_as_far() -> None:
    schedule = ScheduleSection(epochs=1, hold=0.6)
    assert [rate(schedule, 9, used) for used in (0.0, 0.3, 0.6)] == [1, 1, 1]
    assert rate(schedule, 9, 0.8) == pytest.approx(0.505)
    assert rate(schedule, 9, 1.0) == pytest.approx(0.01)


def test_every_epoch_shows_every_photo_in_another_order_shared_by_all_workers() -> None:
    alone = Stream(Brightness(24), 6, seed=3)
    epochs = [
        [i for step in range(4 * e, 4 * e + 4) for _, i in alone.indices(step)] for e in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(24))
    assert epochs[0] != epochs[1]
    halves = [Stream(Brightness(24), 6, 3, rank=rank, world=2).indices(5) for rank in range(2)]
    assert sorted(halves[0] + halves[1]) == sorted(alone.indices(5))


def test_samples_are_the_same_whoever_makes_them() -> None:
    stream = Stream(Brightness(), 6, seed=3)
    here, there = (stream.loader(2, workers, torch.device("cpu")) for workers in (0, 2))
    for _ in range(3):
        for mine, theirs in zip(next(here), next(there), strict=True):
            assert torch.equal(mine, theirs)


def test_a_batch_that_cannot_be_shared_out_is_told() -> None:
    with pytest.raises(UsageError, match=r"schedule.batch.*divided among 4 workers"):
        Stream(Brightness(), 6, 0, rank=0, world=4).loader(0, 0, torch.device("cpu"))
