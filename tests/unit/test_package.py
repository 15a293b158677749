"""Test that `pip install` installs everything in the package, and nothing else."""

from __future__ import annotations

import fnmatch
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_file_of_the_package_that_is_no_code_is_installed_with_it() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]["skinbatch"]
    listed = subprocess.run(
        ["git", "ls-files", "skinbatch"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("no git repository here")

    files = [
        line.removeprefix("skinbatch/")
        for line in listed.stdout.splitlines()
        if not line.endswith(".py")
    ]
    assert {"py.typed", "settings.toml", "train/recipes/starter_detector.toml"} <= set(files)
    missing = [
        file for file in files if not any(fnmatch.fnmatch(file, pattern) for pattern in patterns)
    ]
    assert missing == []
