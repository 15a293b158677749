"""Test one training on two Ray workers on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from skinbatch.errors import UsageError
from skinbatch.train.detection.training import train_detector
from skinbatch.train.fitting.cluster import on_workers
from skinbatch.train.fitting.progress import SilentProgress, TrainingProgress
from skinbatch.train.fitting.saved_state import load_checkpoint
from skinbatch.train.recipe import Recipe
from skinbatch.train.recipe_file import read_recipe
from skinbatch.train.recipe_sections import RunSection
from skinbatch.train.results.result import TrainedStage
from tests.unit.train.detection.spotted import write_spotted

pytestmark = pytest.mark.slow
TWO = RunSection(device="cpu", workers=2)


def test_workers_know_each_other_and_the_first_ones_answer_and_progress_come_back(
    tmp_path: Path,
) -> None:
    notes: list[str] = []
    assert on_workers(_sum_of_ranks, TWO, tmp_path, _Noting(notes)) == 10 + 11
    assert notes == ["rank 0 of 2"]


def test_what_is_wrong_on_a_worker_is_told_and_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="levle0_1"):
        on_workers(partial(_refuse, tmp_path / "tries"), TWO, tmp_path, SilentProgress())
    assert len(list((tmp_path / "tries").iterdir())) == 2  # once on each


def test_more_workers_than_cores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.workers"):
        on_workers(
            _sum_of_ranks, RunSection(device="cpu", workers=10_000), tmp_path, SilentProgress()
        )


@pytest.mark.timeout(900)  # Ray Train waits before it starts workers again
def test_a_detector_is_trained_by_two_and_goes_on_when_one_is_killed(tmp_path: Path) -> None:
    recipe = read_recipe(write_spotted(tmp_path))
    notes: list[str] = []
    work = Path(os.path.relpath(tmp_path / "work"))
    trained = on_workers(partial(_train_with_one_death, recipe, work), TWO, work, _Noting(notes))
    assert (tmp_path / "work" / "killed").exists()
    others = [note for note in notes if not note.startswith("inputs of ")]
    assert len(others) == 1 and others[0].startswith("resumed after step ")
    assert trained.steps == 66 and [point["epoch"] for point in trained.curve] == [2, 4, 6]
    assert trained.curve[-1]["loss"] < 0.8 * trained.curve[0]["loss"]
    assert trained.weights.exists()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_two_workers_that_are_interrupted_end_their_step_and_go_on_from_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    recipe = write_spotted(tmp_path)
    text = recipe.read_text(encoding="utf-8").replace("evaluate_every = 2", "evaluate_every = 500")
    recipe.write_text(
        text.replace("epochs = 6", "epochs = 500").replace("[run]", "[run]\nworkers = 2"),
        encoding="utf-8",
    )
    out = tmp_path / "out"
    first = _interrupted(recipe, out, ", loss ", number)
    assert any("stops after this step" in line for line in first)
    state = load_checkpoint(out / "work" / "detector", {}, torch.device("cpu"))
    assert state is not None and state.step > 0 and not state.curve, (
        "nothing but the interruption had it written"
    )
    again = _interrupted(recipe, out, "resumed after", number)
    assert f"note: resumed after step {state.step}\n" in again


def _interrupted(recipe: Path, out: Path, at: str, number: signal.Signals) -> list[str]:
    """Return the output of a training that gets a signal when it prints `at`."""
    command = [
        sys.executable,
        "-m",
        "skinbatch",
        "train",
        "detector",
        str(recipe),
        "--out",
        str(out),
    ]
    lines: list[str] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            lines.append(line)
            if at in line:
                running.send_signal(number)
                break
        lines += running.stderr.readlines()
    assert running.returncode == 130, lines
    return lines


def _sum_of_ranks(progress: TrainingProgress) -> int:
    value = torch.tensor(10 + dist.get_rank())
    dist.all_reduce(value)
    progress.note(f"rank {dist.get_rank()} of {dist.get_world_size()}")
    return int(value)


def _refuse(tries: Path, progress: TrainingProgress) -> None:
    tries.mkdir(exist_ok=True)
    (tries / f"{os.getpid()}").touch()
    dist.barrier()  # the first to fail ends the other
    raise UsageError("levle0_1.jpg: cannot be used")


def _train_with_one_death(recipe: Recipe, work: Path, progress: TrainingProgress) -> TrainedStage:
    from skinbatch.train.detection import learner, training

    class Deadly(learner.DetectorLearner):
        """Kill the second worker in the middle of the third epoch, once."""

        def learn(self, batch: object, step: int, used: float) -> None:
            mark = work / "killed"
            if dist.get_rank() == 1 and step == 27 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            super().learn(batch, step, used)

    vars(training)["DetectorLearner"] = Deadly
    return train_detector(recipe, work, progress)


class _Noting(SilentProgress):
    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    def note(self, text: str) -> None:
        self._notes.append(text)
