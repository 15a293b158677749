"""Define workers as the scheduler sees them, on whatever engine they run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from skinbatch.config import Config
from skinbatch.errors import UsageError
from skinbatch.scoring.assignment import Assignment, Outcome, ScoringContext


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """Report that a worker has built its models and waits for a unit.

    device: description of its device. host: name of its machine.
    """

    worker: int
    device: str
    host: str

    @property
    def resource(self) -> str:
        """Return what the worker computes on: `cpu` or `gpu`."""
        return "cpu" if self.device.startswith("CPU") else "gpu"


@dataclass(frozen=True, slots=True)
class Finished:
    """Report that a worker has finished its unit, successfully or not."""

    worker: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Death:
    """Report that a worker's process is gone. The pool has begun to start a replacement.

    machine_lost: the whole machine is gone, so the unit is not to blame.
    """

    worker: int
    reason: str
    machine_lost: bool = False


@dataclass(frozen=True, slots=True)
class PoolMessage:
    """Carry a sentence that the user should see now."""

    text: str


PoolEvent = WorkerReady | Finished | Death | PoolMessage


@dataclass(frozen=True, slots=True)
class UnitProgress:
    """Describe how far a worker is with its unit.

    photos: photos finished, counted from 0. on_store: the worker is waiting for a store and for
    nothing else. steps: smaller steps, counted from 0; a worker whose count stays the same has
    stalled. trouble: the last store failure that led to another try, or "" if there is none; it
    does not count as a step.
    """

    photos: int = 0
    on_store: bool = False
    steps: int = 0
    trouble: str = field(default="", compare=False)


class WorkerPool(Protocol):
    """Run a fixed number of workers, each with one unit at a time. Used by one thread."""

    @property
    def size(self) -> int: ...

    def submit(self, worker: int, assignment: Assignment) -> None:
        """Hand a unit to a worker that is ready and idle."""

    def wait(self, timeout_s: float) -> list[PoolEvent]:
        """Wait up to `timeout_s` seconds and return the events since the last call, often none."""

    def progress(self) -> Mapping[int, UnitProgress]:
        """Return the last reported progress of each worker that has a unit."""

    def replace(self, worker: int, reason: str) -> None:
        """Kill a worker and start another in its place. No Death is reported for it."""

    def release(self, kept: Collection[int]) -> None:
        """End all workers but those in `kept`, because no unit is left for them."""

    def restore(self) -> None:
        """Start the workers again that `release` has ended, because there are new units."""

    def close(self) -> None:
        """Kill every worker."""


def check_precision(precision: str | None, gpu: bool) -> None:
    """Raise UsageError if no worker could build its models with this precision.

    Without this check, the workers would die one after another.
    """
    if precision == "fp16" and not gpu:
        raise UsageError(
            "precision fp16 needs workers with a GPU; set precision = 'fp32' in [model]"
        )


class Engine(Protocol):
    """Provide workers. Whoever makes an engine calls `close` at the end."""

    def check(self, source: str, destination: str, config: Config) -> None:
        """Check that the settings and local paths work for every machine that may run a worker.

        Raises UsageError if they do not.
        """

    def start(self, context: ScoringContext) -> WorkerPool:
        """Start the workers for one scoring."""

    def close(self) -> None:
        """End what this engine started. Clusters that existed before keep running."""
