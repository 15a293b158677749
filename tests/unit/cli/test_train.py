"""Test what `skinbatch train` shows while it works, and its messages for wrong use."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from skinbatch.cli import main as cli
from skinbatch.cli.train import TrainingPresenter, describe_point, describe_step
from skinbatch.config import Config, parse_config
from skinbatch.train.fitting.progress import TrainingStep

POINT = {
    "step": 1500,
    "epoch": 3,
    "minutes": 12.5,
    "loss": 0.41234,
    "waited": 0.0042,
    "score": 0.83,
    "dice skin": 0.91,
}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["skinbatch", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_a_step_and_an_evaluation_in_a_line_each() -> None:
    step = TrainingStep(120, 3000, 2, 0.5321, 0.8123, 0.0042, 750)
    assert describe_step(step) == "120/3,000, loss 0.532, best 0.812, waited 0.4 %, 12:30 left"
    assert (
        describe_step(TrainingStep(120, None, 2, 0.5321, None, 0, None))
        == "step 120, loss 0.532, waited 0.0 %"
    )
    assert describe_point(POINT) == (
        "step 1,500 (epoch 3, 12.5 minutes): loss 0.4123, score 0.83, dice skin 0.91, waited for data 0.4 %"
    )


def test_without_a_terminal_there_are_plain_lines_and_no_phase_is_told_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with TrainingPresenter() as presenter:
        presenter.phase("training")
        presenter.evaluated(POINT)
        presenter.phase("training")
        presenter.note("1 photo is broken")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "skinbatch: training",
        f"skinbatch: {describe_point(POINT)}",
        "note: 1 photo is broken",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "segmenter", "nothing.toml", "--out", "out"), "nothing.toml: no such recipe"),
        (
            ("train", "everything", "nothing.toml", "--out", "out"),
            "'segmenter', 'detector', 'classifier'",
        ),
        (("train", "segmenter", "nothing.toml"), "Missing option '--out'"),
    ],
)
def test_wrong_use_is_exit_2_with_the_way_out(
    arguments: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_recipes_are_listed_and_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "recipes") == 0
    assert (
        "starter_detector (detector)\n    The detector of the starter pack"
        in capsys.readouterr().out
    )

    assert run(monkeypatch, "recipes", "starter_detector") == 0
    assert tomllib.loads(capsys.readouterr().out)["stage"] == "detector"


def test_the_settings_that_are_printed_are_every_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "settings") == 0
    assert parse_config(tomllib.loads(capsys.readouterr().out)) == Config()


def test_a_shell_completes_commands() -> None:
    asked = {
        "_SKINBATCH_COMPLETE": "complete_bash",
        "COMP_WORDS": "skinbatch eva",
        "COMP_CWORD": "1",
    }
    command = "import sys; sys.argv = ['skinbatch']; from skinbatch.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["evaluate"])
