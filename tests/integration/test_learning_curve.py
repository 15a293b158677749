"""Test `jobs/learning_curve.py` from the command to the picture: more photos, the same validation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from jobs.learning_curve import draw
from skinbatch.train.recipe_file import read_recipe
from tests.unit.train.detection.spotted import write_spotted

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_small_detector_on_two_shares_of_its_photos(tmp_path: Path) -> None:
    recipe, out = write_spotted(tmp_path / "photos"), tmp_path / "curve"
    command = [sys.executable, str(ROOT / "jobs" / "learning_curve.py"), str(recipe), str(out)]
    command += ["--iterations", "6", "--shares", "1", "0.25", "--size", "96"]
    first = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    points = json.loads((out / "learning-curve.json").read_text(encoding="utf-8"))["points"]
    assert [(point["share"], point["photos"]) for point in points] == [
        (0.25, round(0.25 * 46)),
        (1.0, 46),
    ]
    table = (out / "learning-curve.md").read_text(encoding="utf-8")
    assert "6 steps each at 96 px" in table and "| 46 | " in table and table in first
    assert Image.open(out / "learning-curve.png").width > 800
    quarter, whole = (
        read_recipe(out / name / "recipe.toml") for name in ("25-percent", "100-percent")
    )
    assert (quarter.data.train_share, whole.data.train_share) == (0.25, None)
    assert quarter.data.train == whole.data.train == read_recipe(recipe).data.train
    before = (out / "25-percent" / "work" / "detector" / "log.jsonl").stat().st_mtime_ns
    assert subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout == first
    assert (out / "25-percent" / "work" / "detector" / "log.jsonl").stat().st_mtime_ns == before, (
        "trained twice"
    )


def test_what_cannot_be_negative_is_drawn_from_zero_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    numbers = (("AP50", 0.01, 0.0, 0.6), ("count MAE", 3.0, 0.1, 9.0))
    metrics = [
        {"name": name, "of": "", "value": v, "low": low, "high": high}
        for name, v, low, high in numbers
    ]
    points = [
        {"share": share, "photos": round(46 * share), "metrics": metrics} for share in (0.5, 1.0)
    ]
    draw(points, read_recipe(write_spotted(tmp_path)), 6, tmp_path / "curve.png")
    (figure,) = drawn
    assert [axes.get_ylim()[0] for axes in figure.axes] == [0, 0]
    assert all(
        axes.get_ylim()[1] > high for axes, (*_, high) in zip(figure.axes, numbers, strict=True)
    )
