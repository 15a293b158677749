"""Fork the local engine's workers from a process that has imported what they need.

A worker that Python starts anew spends three to seven seconds of processor time on imports. A
forked one is the same otherwise: a process of its own that runs `skinbatch.engines.child`, with the
environment, the folder and the streams that the engine would have given it. Commands that a test
starts as processes still start their workers anew.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from skinbatch.engines.local import LocalPool, _with_threads
from skinbatch.engines.worker import environment
from skinbatch.models.pack import load_pack
from skinbatch.scoring.hardware import usable_cpus

ROOT = Path(__file__).parents[1]
# Every worker imports these.
MODULES = (
    "skinbatch.engines.child",
    "skinbatch.engines.worker",
    "skinbatch.models.fake",
    "skinbatch.scoring.unit_scorer",
    "skinbatch.storage.s3",
)
# Workers with the networks of real packs import these as well.
NETWORKS = (
    "skinbatch.models.build",
    "skinbatch.models.classifiers.classifier",
    "skinbatch.models.detectors.mmdet.detector",
    "skinbatch.models.detectors.mmdet.feature_maps",
    "skinbatch.models.segmenters.bisenet",
)
# Read when a process starts, so a worker with other values cannot be forked.
_AT_START = ("LD_", "MALLOC_", "PYTHON")
_MOST_BYTES = 1 << 20


class WarmWorkers:
    """Start workers: the near end. The process that they are forked from starts with the first one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._at_start: dict[str, str] = {}

    def can_fork(self, env: Mapping[str, str]) -> bool:
        """Return whether a worker with this environment can be forked."""
        with self._lock:
            if self._process is None:
                self._start(env)
        return self._at_start == _of_start(env)

    def fork(self, env: Mapping[str, str], modules: tuple[str, ...], connection: int) -> Worker:
        """Start a worker that talks over the socket `connection`."""
        request = {"env": dict(env), "folder": os.getcwd(), "modules": modules}
        return Worker(self, self.ask(request, (connection, 1, 2)))

    def ask(self, request: Mapping[str, Any], descriptors: tuple[int, ...] = ()) -> int:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
            return int(self._socket.recv(_MOST_BYTES))

    def close(self) -> None:
        if self._process is not None:
            self._socket.close()
            self._process.wait()

    def _start(self, env: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._at_start = _of_start(env)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_workers", str(theirs.fileno())],
            cwd=ROOT,
            pass_fds=[theirs.fileno()],
            env={**env, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        theirs.close()


class Worker:
    """Offer what the pool needs of a Popen."""

    def __init__(self, origin: WarmWorkers, pid: int) -> None:
        self.pid, self._origin = pid, origin
        self._code: int | None = None

    def kill(self) -> None:
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        if self._code is None:
            self._code = self._origin.ask({"wait": self.pid})
        return self._code


def _of_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_AT_START)}


def forking(origin: WarmWorkers) -> Any:
    """Return a replacement of `LocalPool._start` that forks the worker where it can."""
    start_anew = LocalPool._start

    def start(self: LocalPool) -> None:
        threads = max(1, int(self.context.config.engine.cpus_per_worker or usable_cpus()))
        env = os.environ | environment(threads)
        if not origin.can_fork(env):
            start_anew(self)
            return

        ours, theirs = Pipe()
        config = self.context.config
        pack = load_pack(config.pack, config.storage)
        modules = () if pack.detector.architecture.weights == "none" else NETWORKS
        self._process = origin.fork(env, modules, theirs.fileno())  # type: ignore[assignment]
        theirs.close()
        self._connection = ours
        self._send(_with_threads(self.context, threads))

    return start


def _serve(connection: socket.socket) -> None:
    """Serve requests until the near end is closed: the far end."""
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()

    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, _MOST_BYTES, 3)
        if not data:
            os._exit(0)
        request = json.loads(data)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = _fork(connection, request, descriptors)
        connection.send(str(answer).encode())


def _fork(connection: socket.socket, request: Mapping[str, Any], descriptors: list[int]) -> int:
    """Fork a worker and return its process id."""
    for name in request["modules"]:
        importlib.import_module(name)

    pid = os.fork()
    if pid == 0:
        connection.close()
        _work(request, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def _work(request: Mapping[str, Any], descriptors: list[int]) -> None:
    """Do what `python -m skinbatch.engines.child` does, and end this process."""
    from skinbatch.engines import child

    code = 1
    try:
        os.setsid()
        for descriptor, stream in zip(descriptors[1:], (1, 2), strict=True):
            os.dup2(descriptor, stream)
            os.close(descriptor)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["env"])

        child.main(descriptors[0])
        code = 0
    except (BrokenPipeError, ConnectionResetError):
        pass  # as the child does: the driver has gone
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
