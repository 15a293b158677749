"""Send SIGTERM to all processes of a training at once, as services and clusters do: the step ends
and is kept, and the training can continue."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from skinbatch.train.fitting.progress import SilentProgress
from skinbatch.train.session import train
from tests.training import command, until
from tests.unit.train.detection.spotted import write_spotted

CLASSIFIER = """
stage = "classifier"
name = "shades"
[model]
arch = "timm"
backbone = "tf_efficientnet_lite0"
classes = ["dark", "bright"]
size = 32
[data]
train = [{ truth = "shades" }]
valid_share = 0.25
[schedule]
epochs = 1000
batch = 4
[run]
device = "cpu"
threads = 1
loader_threads = 2
"""


def classifier(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, grey in (("dark", 45), ("bright", 200)):
        (folder / "shades" / name).mkdir(parents=True)
        for n in range(8):
            texture = grey + rng.integers(0, 40, (48, 48, 3))
            Image.fromarray(texture.astype(np.uint8)).save(folder / "shades" / name / f"{n}.png")
    (folder / "shades.toml").write_text(CLASSIFIER)
    return folder / "shades.toml"


def detector(folder: Path) -> Path:
    recipe = write_spotted(folder, photos=8, clear=2)
    text = (
        recipe.read_text()
        .replace("epochs = 6", "epochs = 1000")
        .replace("evaluate_every = 2", "evaluate_every = 1")
    )
    recipe.write_text(text.replace("loader_threads = 0", "loader_threads = 2"))
    return recipe


class UntilEvaluated(SilentProgress):
    """Interrupt a training at its first evaluation, and keep its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def evaluated(self, point: Mapping[str, float]) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("stage", "made"),
    [("classifier", classifier), pytest.param("detector", detector, marks=pytest.mark.slow)],
)
def test_a_signal_to_the_whole_group_ends_the_step_and_keeps_it(
    stage: str, made: object, tmp_path: Path
) -> None:
    recipe = made(tmp_path)  # type: ignore[operator]
    out = tmp_path / "out"
    stem = "classifier-disease" if stage == "classifier" else stage
    for evaluations in (1, 2):  # the second goes on from the first
        running = command(stage, recipe, out)
        until(running, out / "work" / stem, evaluations)
        makers = [p for p in psutil.Process(running.pid).children() if p.name() == "pt_data_worker"]
        assert len(makers) == 2
        (checkpoint,) = (out / "work" / stem).glob("checkpoint.pt")
        before = checkpoint.stat().st_mtime_ns
        os.killpg(running.pid, signal.SIGTERM)
        said = running.communicate(timeout=120)[1]
        assert running.returncode == 130, said
        assert "stops after this step" in said
        assert checkpoint.stat().st_mtime_ns > before
        assert not any(maker.is_running() for maker in makers)

    progress = UntilEvaluated()
    with pytest.raises(KeyboardInterrupt):
        train(stage, recipe, out, progress)
    assert [note for note in progress.notes if note.startswith("resumed after step ")]
