"""Run one training on several workers, on this machine or a cluster.

Ray Train starts the workers and connects them by torch.distributed: gloo on CPUs, NCCL on GPUs.
When a worker dies, all are started again and continue from the last checkpoint.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from skinbatch.errors import SkinbatchError, UsageError
from skinbatch.ray_environment import settle, without_sigterm_handler
from skinbatch.train.fitting.interrupt import Interrupts, ask_to_stop
from skinbatch.train.fitting.progress import SilentProgress, TrainingProgress, TrainingStep
from skinbatch.train.recipe_sections import RunSection

settle(os.environ.get("RAY_ADDRESS"))

import ray  # noqa: E402
from ray._private import utils as ray_utils  # noqa: E402

Result = TypeVar("Result")

# Number of times that dead workers are replaced.
RESTARTS = 3
ASKED_EVERY_S = 0.5
# How long the other workers wait while the first one reads photos or writes.
COLLECTIVE_TIMEOUT_S = 3600


def on_workers(
    train: Callable[[TrainingProgress], Result],
    run: RunSection,
    work: Path,
    progress: TrainingProgress,
    *,
    address: str | None = None,
) -> Result:
    """Call `train` on `run.workers` workers at once and return the first one's result.

    Each of them initialises torch.distributed, and `train`, which must be picklable, finds its rank
    there. Only the first one's progress is shown.

    Args:
        work: a folder that every machine sees, for checkpoints.
        address: of a cluster. None: RAY_ADDRESS, or Ray on this machine.

    Raises:
        UsageError: there are not enough machines, or `train` raised it.
        KeyboardInterrupt: after the workers have ended their step and written the checkpoint, or at
            once on the second interrupt.
        Ray's error: workers died again and again.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    ours = not ray.is_initialized()
    if ours:
        _connect(address or os.environ.get("RAY_ADDRESS"))
    try:
        gpu, cores = _shares(run)
        desk = ray.remote(num_cpus=0)(_Desk).remote()
        work.mkdir(parents=True, exist_ok=True)
        trainer = TorchTrainer(
            _worker,
            train_loop_config={
                "train": train,
                "desk": desk,
                "threads": None if gpu else int(cores),
                "folder": os.getcwd(),
                "work": str(work.resolve()),
            },
            torch_config=TorchConfig(
                backend="nccl" if gpu else "gloo", timeout_s=COLLECTIVE_TIMEOUT_S
            ),
            scaling_config=ScalingConfig(
                num_workers=run.workers,
                use_gpu=gpu,
                resources_per_worker={"CPU": cores} | ({"GPU": 1} if gpu else {}),
            ),
            run_config=RunConfig(
                name="training",
                storage_path=str(work.resolve() / "ray"),
                failure_config=FailureConfig(max_failures=RESTARTS),
            ),
        )
        with _Listener(desk, progress):
            _fit(trainer, desk)
        outcome = ray.get(desk.outcome.remote())
    finally:
        if ours:
            ray.shutdown()
    if isinstance(outcome, SkinbatchError | KeyboardInterrupt):
        raise outcome
    result: Result = outcome
    return result


def _fit(trainer: Any, desk: Any) -> None:
    """Call `trainer.fit()` in a thread of its own, where Ray leaves Ctrl-C to us.

    Ray's own handler would end workers in the middle of a step.
    """
    failed: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as e:  # raised again by the thread that waits
            failed.append(e)

    thread = threading.Thread(target=fit, daemon=True)
    with Interrupts() as interrupts:
        thread.start()
        is_stopping = False
        while thread.is_alive():
            thread.join(ASKED_EVERY_S)
            if interrupts.asked and not is_stopping:
                is_stopping = True
                desk.ask_to_stop.remote()
    if failed:
        raise failed[0]


def _connect(address: str | None) -> None:
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    try:
        with without_sigterm_handler(ray_utils):
            ray.init(
                address or "local",
                logging_level=logging.ERROR,
                log_to_driver=False,
                **({} if address else {"include_dashboard": False}),
            )
    except Exception as e:  # Ray raises any class here, bare Exception too
        raise UsageError(
            f"Ray at {address or 'this machine'} cannot be reached: {e}; set `run.workers` = 1"
        ) from e


def _shares(run: RunSection) -> tuple[bool, float]:
    """Return whether workers have a GPU each, and how many cores they have."""
    there = ray.cluster_resources()
    cores, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
    gpu = run.device != "cpu" and gpus >= run.workers
    if run.device == "cuda" and not gpu:
        raise UsageError(
            f"setting `run.workers`: {run.workers} workers need a GPU each, but Ray has {gpus:g}"
        )
    if cores < run.workers:
        raise UsageError(
            f"setting `run.workers`: {run.workers} workers need a core each, but Ray has {cores:g}"
        )
    return gpu, float(cores // run.workers)


def _worker(config: Mapping[str, Any]) -> None:
    """Run on every worker, and again after one has died."""
    desk = config["desk"]
    if ray.get(desk.is_over.remote()):
        return
    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    first = ray.train.get_context().get_world_rank() == 0
    try:
        _stand_in(config["folder"], config["work"])
        with _Stopping(desk):
            result = config["train"](_Told(desk) if first else SilentProgress())
    except KeyboardInterrupt:
        ray.get(desk.fail.remote(KeyboardInterrupt()))
        return
    except SkinbatchError as e:
        # The user has to fix this. It is kept, so that the workers that Ray starts again do not run
        # into it once more.
        ray.get(desk.fail.remote(e))
        raise
    if first:
        ray.get(desk.finish.remote(result))


def _stand_in(folder: str, work: str) -> None:
    """Change to the folder of the command, so that relative paths mean the same.

    Raises UsageError if `work` is not visible there.
    """
    if not os.path.isdir(work):
        raise UsageError(
            f"{work}: not seen on {socket.gethostname()}; on a cluster --out must be a folder that every machine mounts"
        )
    if os.path.isdir(folder):
        os.chdir(folder)


class _Desk:
    """Pass messages between the workers and whoever started them; an actor."""

    def __init__(self) -> None:
        self._said: list[tuple[str, Any]] = []
        self._outcome: Any = None
        self._failed = self._asked = False

    def say(self, method: str, value: Any) -> None:
        self._said.append((method, value))

    def take(self) -> list[tuple[str, Any]]:
        messages, self._said = self._said, []
        return messages

    def finish(self, result: Any) -> None:
        self._outcome = result

    def fail(self, error: SkinbatchError | KeyboardInterrupt) -> None:
        if not self._failed:
            self._outcome, self._failed = error, True

    def is_over(self) -> bool:
        """Return whether workers that Ray starts again have nothing left to do."""
        return self._failed

    def ask_to_stop(self) -> None:
        self._asked = True

    def asked_to_stop(self) -> bool:
        return self._asked

    def outcome(self) -> Any:
        return self._outcome


class _Told:
    """Send the first worker's progress to the desk. Implements TrainingProgress."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk

    def phase(self, text: str) -> None:
        self._desk.say.remote("phase", text)

    def note(self, text: str) -> None:
        self._desk.say.remote("note", text)

    def step(self, now: TrainingStep) -> None:
        self._desk.say.remote("step", now)

    def evaluated(self, point: Mapping[str, float]) -> None:
        self._desk.say.remote("evaluated", dict(point))


class _Stopping:
    """Pass a wish to stop from the desk to the training of this worker, while the context lasts."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> None:
        ask_to_stop(False)
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()

    def _listen(self) -> None:
        while not self._over.wait(ASKED_EVERY_S):
            if ray.get(self._desk.asked_to_stop.remote()):
                ask_to_stop()
                return


class _Listener:
    """Pass messages from the desk to `progress`, while the context lasts."""

    def __init__(self, desk: Any, progress: TrainingProgress) -> None:
        self._desk, self._progress = desk, progress
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> _Listener:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._over.wait(ASKED_EVERY_S):
            self._tell()
        self._tell()

    def _tell(self) -> None:
        for method, value in ray.get(self._desk.take.remote()):
            getattr(self._progress, method)(value)
