"""Score one archive under faults, in as many runs as it takes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faces import rows
from tests.faults.bench import differences, same_rows
from tests.faults.fault import Fault, Faults, state_of
from tests.faults.zygote import Driver, Zygote

SETTINGS = """
[engine]
batch_size = 2
stall_timeout_s = 1.0
[decode]
threads = 2
[storage]
max_attempts = 1
timeout_s = 0.5
"""


@dataclass(slots=True)
class Trial:
    """Hold the archive (source), the destination (out) and an undisturbed run of the same (like)."""

    source: Path
    out: Path
    like: Path
    pack: str
    zygote: Zygote
    faults: Faults

    def plan(self, *faults: Fault) -> None:
        self.faults.plan(faults)

    def start(self, options: Sequence[str] = (), **how: Any) -> Driver:
        """Start `skinbatch score` of the archive in the background. how: see `zygote._drive`."""
        settings = self.out.parent / "settings.toml"
        settings.write_text(SETTINGS)
        arguments = [
            "score",
            str(self.source),
            str(self.out),
            "--pack",
            self.pack,
            "--engine",
            "local",
        ]
        return self.zygote.start(
            [*arguments, "--config", str(settings), *options], self.faults, **how
        )

    def run(self, options: Sequence[str] = (), **how: Any) -> Driver:
        """Run it to its end, and check that it is done."""
        driver = self.start(options, **how)
        code = driver.end()
        assert code == 0, f"exit code {code}: {driver.said}"
        return driver

    def report(self) -> dict[str, Any]:
        """Run it to its end, and return its report."""
        said = self.run(["--json"]).said
        found: dict[str, Any] = json.loads(said[said.index("{") :])
        return found

    def hit(self, timeout_s: float = 30.0) -> int:
        """Wait for the planned fault, and return the process that it hit."""
        end = time.monotonic() + timeout_s
        while not (found := self.faults.happened):
            assert time.monotonic() < end, "the fault does not happen"
            time.sleep(0.01)
        return found[-1][1]

    def go_on(self, pid: int) -> None:
        """Continue a process that a fault has stopped."""
        os.kill(pid, signal.SIGCONT)

    def end_of(self, pid: int, timeout_s: float = 30.0) -> None:
        """Wait until a process has ended."""
        end = time.monotonic() + timeout_s
        while state_of(pid) not in ("", "Z"):
            assert time.monotonic() < end, f"process {pid} does not end"
            time.sleep(0.01)

    def bury(self, driver: Driver) -> None:
        """End the worker of a driver that was killed, as the loss of its machine would."""
        driver.sweep()
        for pid in self.faults.running("worker"):
            self.end_of(pid)

    def check(self) -> None:
        """Check that each photo has one row, that of the undisturbed run, and that `verify` agrees."""
        assert differences(self.out) == []
        assert len(rows(self.out)) == len(rows(self.like))
        assert same_rows(self.out, self.like)
        assert not list(self.out.rglob(".tmp-*"))
