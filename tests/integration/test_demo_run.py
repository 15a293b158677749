"""Run `skinbatch demo` as a new user does: tables, a report, and what to open."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import skinbatch


@pytest.mark.timeout(300)
def test_the_demo_finds_its_lesions_and_ends_with_a_report(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "skinbatch", "demo", "demo", "--engine", "local"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    lesions = sum(
        row["count_total"] or 0
        for row in skinbatch.open(tmp_path / "demo/scored").images().to_pylist()
    )
    page = (tmp_path / "demo/report.html").read_text(encoding="utf-8")
    assert f"{lesions:,} lesions in all" in page
    assert page.count("data:image/jpeg") == 12, "all photos but the truncated one"
    assert "report.html in a browser" in done.stdout
    assert re.search(r"72 lesions, 7[0-2] found", done.stdout)
