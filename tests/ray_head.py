"""A Ray cluster of one node for tests: `ray start --head`, with ports, a folder and a token of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent

# A head that takes longer than this to answer will not start any more.
START_S = 120.0

_PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
    "ray-client-server-port",
    "node-manager-port",
    "object-manager-port",
)


@dataclass(frozen=True, slots=True)
class Head:
    """A running head. `address` is its dashboard's; `client` is the environment of who may use it."""

    process: subprocess.Popen[bytes]
    address: str
    gcs_address: str
    client: Mapping[str, str]

    def kill(self) -> None:
        """End the node as a lost machine would: at once, with all that runs on it."""
        processes = [self.process]
        if self.process.poll() is None:
            processes = [*psutil.Process(self.process.pid).children(recursive=True), self.process]
        for process in processes:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                process.kill()
        self.process.wait()


@contextmanager
def ray_head(env: Mapping[str, str], *, cpus: int = 2) -> Iterator[Head]:
    """Start a head whose processes, and the jobs on it, have this environment. End all of it on the way out."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    # Sockets lie in this folder, and their paths may have 107 characters.
    folder = tempfile.mkdtemp(prefix="ray-")
    process = subprocess.Popen(
        [
            *(str(BIN / "ray"), "start", "--head", "--block", f"--num-cpus={cpus}", f"--temp-dir={folder}"),
            *(f"--{name}={port}" for name, port in ports.items()),
            *("--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000"),
            *("--node-ip-address=127.0.0.1", "--disable-usage-stats"),
        ],
        env={**env, **token},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    client = {**env, **token, "RAY_API_SERVER_ADDRESS": address}
    head = Head(process, address, f"127.0.0.1:{ports['port']}", client)
    try:
        _wait_for(head, token["RAY_AUTH_TOKEN"])
        yield head
    finally:
        head.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(head: Head, token: str) -> None:
    """Return when the head takes jobs."""
    request = urllib.request.Request(f"{head.address}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + START_S
    while True:
        with suppress(OSError), urllib.request.urlopen(request, timeout=10):
            return
        assert head.process.poll() is None, "the head ended at its start"
        assert time.monotonic() < deadline, f"the head did not answer within {START_S:g} s"
        time.sleep(0.5)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with ExitStack() as held:
        servers = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def bare_environment(home: Path) -> dict[str, str]:
    """Return the environment of a user who has set nothing up, with the programs of this test run."""
    kept = {name: os.environ[name] for name in ("LANG", "OMP_NUM_THREADS") if name in os.environ}
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**kept, "PATH": path, "HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}
