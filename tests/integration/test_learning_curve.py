"""`jobs/learning_curve.py`: more photos, the same validation, from the command to the picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from skinbatch.train.recipe import read_recipe
from tests.unit.train.detection.spotted import write_spotted

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_small_detector_on_two_shares_of_its_photos(tmp_path: Path) -> None:
    recipe, out = write_spotted(tmp_path / "photos"), tmp_path / "curve"
    command = [sys.executable, str(ROOT / "jobs" / "learning_curve.py"), str(recipe), str(out)]
    command += ["--iterations", "6", "--shares", "1", "0.25", "--size", "96"]
    first = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    points = json.loads((out / "learning-curve.json").read_text(encoding="utf-8"))["points"]
    assert [(point["share"], point["photos"]) for point in points] == [(0.25, round(0.25 * 46)), (1.0, 46)]
    table = (out / "learning-curve.md").read_text(encoding="utf-8")
    assert "6 steps each at 96 px" in table and "| 46 | " in table and table in first
    assert Image.open(out / "learning-curve.png").width > 800
    quarter, whole = (read_recipe(out / name / "recipe.toml") for name in ("25-percent", "100-percent"))
    assert (quarter.data.train_share, whole.data.train_share) == (0.25, None)
    assert quarter.data.train == whole.data.train == read_recipe(recipe).data.train
    before = (out / "25-percent" / "work" / "detector" / "log.jsonl").stat().st_mtime_ns
    assert subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout == first
    assert (out / "25-percent" / "work" / "detector" / "log.jsonl").stat().st_mtime_ns == before, "trained twice"

    trained = out / "100-percent" / "work" / "detector"
    other = [*command[:3], str(tmp_path / "other"), "--iterations", "6", "--shares", "1", "--trained", str(trained)]
    subprocess.run(other, check=True, stdout=subprocess.PIPE)
    found = json.loads((tmp_path / "other" / "learning-curve.json").read_text(encoding="utf-8"))["points"]
    assert found == points[1:]
    assert not (tmp_path / "other" / "100-percent").exists(), "trained again"
