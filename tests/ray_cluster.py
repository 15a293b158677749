"""Start a Ray cluster as on machines of its own: by Ray's command, in a temporary folder, on its own ports."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

import psutil

BIN = Path(sys.executable).parent


def bare_environment(home: Path) -> dict[str, str]:
    """Return the environment of a machine on which Ray has never run: no token, nothing set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    path = f"{BIN}:{os.environ.get('PATH', '')}"
    return kept | {
        "HOME": str(home),
        "PATH": path,
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }


def home_with_token(folder: Path) -> Path:
    """Return a home in which embedded Ray has left its token before."""
    (folder / ".ray").mkdir(parents=True)
    (folder / ".ray/auth_token").write_text(secrets.token_hex(32))
    return folder


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class RayCluster:
    """Run a head and nodes that join it. Leaving the context ends all of them, and nothing else.

    address: of the cluster. dashboard: of its job server.
    """

    def __init__(
        self,
        home: Path,
        *,
        auth: str = "disabled",
        cpus: int = 2,
        program: Sequence[str] = (str(BIN / "ray"),),
        options: Sequence[str] = (),
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Start the head.

        auth: RAY_AUTH_MODE of its processes. program: starts the head. options: more options of
        `ray start --head`. more: environment of its processes.
        """
        self.env = bare_environment(home) | {"RAY_AUTH_MODE": auth} | dict(more or {})
        self._cpus, self._program, self._options = cpus, program, options
        # Sockets lie in it, and their paths may have 107 characters.
        self._folder = tempfile.mkdtemp(prefix="ray-")
        self._started: list[subprocess.Popen[bytes]] = []
        port, dashboard, agent, client = free_ports(4)
        self.address, self.dashboard = f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"
        self._ports = [
            f"--port={port}",
            f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={agent}",
        ]
        self._ports += [f"--ray-client-server-port={client}"]

    def __enter__(self) -> RayCluster:
        head = [
            "start",
            "--head",
            "--node-ip-address=127.0.0.1",
            f"--temp-dir={self._folder}",
            *self._ports,
        ]
        try:
            self._start([*self._program, *head, f"--num-cpus={self._cpus}", *self._options])
            self._until_it_answers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def add_node(self, *options: str) -> None:
        """Start one more node on this machine."""
        self._start([str(BIN / "ray"), "start", f"--address={self.address}", *options])

    def kill_head(self) -> None:
        """Kill the head as if its machine lost power."""
        self._kill(self._started[0])

    def __exit__(self, *exc: object) -> None:
        for process in reversed(self._started):
            self._kill(process)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, command: Sequence[str]) -> None:
        more = ["--block", "--object-store-memory=100000000", "--disable-usage-stats"]
        self._started.append(
            subprocess.Popen(
                [*command, *more],
                env=self.env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def _until_it_answers(self) -> None:
        end = time.monotonic() + 200  # a busy machine takes minutes
        while not self._lists_jobs():
            assert self._started[0].poll() is None and time.monotonic() < end, (
                "the cluster did not start"
            )
            time.sleep(0.1)

    def _lists_jobs(self) -> bool:
        """Ask the job server what `ray job list` asks it, which would take a process of Ray's each time."""
        stored = Path(self.env["HOME"]) / ".ray/auth_token"
        token = self.env.get("RAY_AUTH_TOKEN") or (stored.read_text() if stored.exists() else "")
        asked = Request(
            f"{self.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {token.strip()}"}
        )
        try:
            with build_opener(ProxyHandler({})).open(asked, timeout=10.0) as answer:
                return bool(answer.status == 200)
        except (OSError, HTTPException):
            return False

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        children: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for child in children:  # Ray puts some into sessions of their own
            with suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait()
