"""Run the scorer in one child process, without Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

from skinbatch.config import Config, EngineSettings
from skinbatch.engines.pool import (
    Death,
    Finished,
    PoolEvent,
    UnitProgress,
    WorkerReady,
    check_precision,
)
from skinbatch.engines.worker import environment
from skinbatch.errors import UsageError
from skinbatch.scoring.assignment import Assignment, ScoringContext
from skinbatch.scoring.hardware import cuda_devices, usable_cpus


class LocalEngine:
    """Score in one spawned child process. A crash in the child leaves the driver running."""

    def __init__(self, settings: EngineSettings) -> None:
        if settings.ray_address is not None:
            raise UsageError("--ray-address needs --engine ray")
        if settings.workers not in (None, 1):
            raise UsageError(
                f"--engine local has one worker, not {settings.workers}; use --engine ray for more"
            )
        self.settings = settings
        self._begun: LocalPool | None = None

    def check(self, source: str, destination: str, config: Config) -> None:
        """Check device and precision. Paths need no check: everything runs on this machine."""
        if self.settings.device == "gpu" and not _has_gpu(self.settings):
            raise UsageError(
                "device = 'gpu', but there is no GPU here; use device = 'auto' or a cluster with GPUs"
            )
        check_precision(config.model.precision, _has_gpu(self.settings))

    def begin(self, context: ScoringContext) -> None:
        """Start the worker before its units are known, so that it loads its models meanwhile.

        `start` takes it over. Without it, `close` ends it.
        """
        self._begun = LocalPool(context)

    def start(self, context: ScoringContext) -> LocalPool:
        begun, self._begun = self._begun, None
        return begun or LocalPool(context)

    def close(self) -> None:
        """End a worker that was begun and not started."""
        if self._begun is not None:
            self._begun.close()


class LocalPool:
    """Run a pool of one child process."""

    size = 1

    def __init__(self, context: ScoringContext) -> None:
        self.context = context
        self._progress = UnitProgress()
        self._start()

    def _start(self) -> None:
        ours, theirs = Pipe()
        threads = max(1, int(self.context.config.engine.cpus_per_worker or usable_cpus()))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "skinbatch.engines.child", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=os.environ | environment(threads),
            start_new_session=True,  # Ctrl-C in the terminal reaches the driver alone
        )
        theirs.close()
        self._connection: Connection[Any, Any] = ours
        self._send(_with_threads(self.context, threads))

    def _send(self, message: object) -> None:
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return  # the child is dead; `wait` reports it

    def submit(self, worker: int, assignment: Assignment) -> None:
        self._progress = UnitProgress()
        self._send(assignment)

    def wait(self, timeout_s: float) -> list[PoolEvent]:
        end = time.monotonic() + timeout_s
        while wait([self._connection], max(0.0, end - time.monotonic())):
            try:
                kind, *values = self._connection.recv()
            except (EOFError, ConnectionResetError, OSError):
                return [self._reap("")]
            if kind == "progress":
                self._progress = values[0]
            elif kind == "ready":
                return [WorkerReady(0, *values)]
            elif kind == "broken":
                return [self._reap(str(values[0]))]
            else:
                return [Finished(0, values[0])]
        return []

    def _reap(self, reason: str) -> Death:
        self._connection.close()
        self._process.kill()
        code = self._process.wait()
        self._start()
        return Death(0, reason or _describe(code))

    def progress(self) -> Mapping[int, UnitProgress]:
        return {0: self._progress}

    def replace(self, worker: int, reason: str) -> None:
        self._reap(reason)

    def release(self, kept: Collection[int]) -> None:
        """Do nothing: the only worker ends with the run."""

    def restore(self) -> None:
        """Do nothing: the only worker is there."""

    def close(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()


def _with_threads(context: ScoringContext, threads: int) -> ScoringContext:
    return replace(context, threads=threads, gpu=_has_gpu(context.config.engine))


def _has_gpu(settings: EngineSettings) -> bool:
    return settings.device != "cpu" and settings.gpus_per_worker != 0 and cuda_devices() > 0


def _describe(code: int) -> str:
    if code < 0:
        return f"the worker was killed by {signal.Signals(-code).name}"
    return f"the worker ended with exit code {code}"
