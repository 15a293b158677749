"""Test that scoring needs no package of an extra, and that other commands name theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Found before the real packages, so that each import fails as if nothing was installed.
MISSING = 'raise ModuleNotFoundError("No module named {name!r}", name={name!r})\n'


@pytest.fixture
def scored(photos: Path, fake_pack: str, tmp_path: Path) -> Path:
    """Return a scoring that was made without the extras."""
    for name in ("sklearn", "captum"):
        (tmp_path / "missing").mkdir(exist_ok=True)
        (tmp_path / "missing" / f"{name}.py").write_text(MISSING.format(name=name))

    ended = without_extras(
        tmp_path, "score", photos, tmp_path / "out", "--pack", fake_pack, "--engine", "local"
    )
    assert ended.returncode == 0, ended.stderr
    return tmp_path / "out"


def without_extras(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "skinbatch", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "missing")},
    )


def test_scoring_needs_no_extra_and_other_commands_name_theirs(
    scored: Path, photos: Path, tmp_path: Path
) -> None:
    evaluated = without_extras(tmp_path, "evaluate", scored, photos)
    assert evaluated.returncode == 2
    assert "sklearn is not installed: pip install 'skinbatch[train]'" in evaluated.stderr

    explained = without_extras(tmp_path, "explain", scored, "00000/00000.png")
    assert explained.returncode == 2
    assert "captum is not installed: pip install 'skinbatch[explain]'" in explained.stderr
