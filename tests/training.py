"""Run trainings as commands that can be interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path


def command(stage: str, recipe: Path, out: Path) -> subprocess.Popen[str]:
    """Start `skinbatch train` in a process group of its own."""
    program = "from skinbatch.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, "train", stage, str(recipe), "--out", str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def curve(work: Path) -> list[dict[str, float]]:
    """Return one entry for each evaluation that is done."""
    log = work / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def until(running: subprocess.Popen[str], work: Path, evaluations: int) -> None:
    """Wait until this many evaluations are done. The training must not end before."""
    while len(curve(work)) < evaluations:
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.01)


def kill(running: subprocess.Popen[str]) -> None:
    """Send SIGKILL to the command and everything that it has started."""
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()


def learned(points: list[dict[str, float]]) -> list[Mapping[str, float]]:
    """Return a curve without what differs from run to run."""
    return [{k: v for k, v in point.items() if k not in ("minutes", "waited")} for point in points]
