"""Run a Ceph gateway that a test may kill."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.conftest import three_ports


class Gateway:
    """Run a monitor, a disk and a gateway on this machine.

    facts: `S3_ENDPOINT_URL` and the keys, named as in the environment.
    """

    def __init__(self, script: Path, folder: Path) -> None:
        self._script, self._folder = script, folder
        self._where = {**os.environ, "RGW_DIR": str(folder), "RGW_PORT": str(three_ports())}
        self.facts: dict[str, str] = {}

    def start(self) -> None:
        """Start the gateway. After a kill, it still has its objects."""
        said = subprocess.run(
            [self._script], env=self._where, check=True, capture_output=True, text=True
        ).stdout
        self.facts = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)

    def kill(self) -> None:
        """Kill all its processes at once, as a power failure does."""
        for file in (self._folder / "run").glob("*.pid"):
            with suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGKILL)

    def wipe(self) -> None:
        stop = self._script.with_name("stop")
        subprocess.run([stop, "--wipe"], env=self._where, check=True, capture_output=True)
