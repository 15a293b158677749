"""Run commands and whole runs in this process, without starting an engine."""

from __future__ import annotations

import io
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from skinbatch.cli import main as cli
from skinbatch.config import parse_config
from skinbatch.engines.driver import drive
from skinbatch.engines.presenter import SilentPresenter
from skinbatch.engines.run import Run
from skinbatch.engines.setup import prepare
from skinbatch.runs.run_report import RunReport
from tests.faults.in_process import InProcessEngine


def score(source: Path | str, dest: Path | str, pack: str, /, **settings: Any) -> RunReport:
    """Score `source` into `dest` and return the run's report. settings: sections of the configuration."""
    config = parse_config(
        {"pack": pack, "engine": {"name": "local", "cpus_per_worker": 1.0}, **settings}
    )
    run = Run(prepare(str(source), str(dest), config), SilentPresenter(), "test")
    return drive(run, InProcessEngine())


def command(*arguments: str) -> tuple[int, str, str]:
    """Run `skinbatch ARGUMENTS` in this process and return its exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["skinbatch", *arguments])
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()
