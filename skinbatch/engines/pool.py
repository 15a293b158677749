"""Workers as the scheduler sees them, whatever they run on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from skinbatch.config import Config
from skinbatch.errors import UsageError
from skinbatch.scoring.assignment import Assignment, Outcome, ScoringContext


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has built its models and waits for a unit. device: as it describes itself. host: its machine."""

    worker: int
    device: str
    host: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The worker's unit came to an end."""

    worker: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Death:
    """The worker's process is gone; the pool has begun to start another in its place.

    machine_lost: its machine went with it, which is not the unit's fault.
    """

    worker: int
    reason: str
    machine_lost: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """Something that the user should know now, in a sentence."""

    text: str


Event = Ready | Finished | Death | Said


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a worker is with its unit.

    photos: that the unit has got further by, from 0. on_store: the worker waits for a store, and for nothing else.
    steps: smaller ones than photos, from 0; where none is made, the worker stalls. trouble: what a store last did to it
    that made it ask again, "" if nothing; no step.
    """

    photos: int = 0
    on_store: bool = False
    steps: int = 0
    trouble: str = field(default="", compare=False)


class WorkerPool(Protocol):
    """A fixed number of workers, each with one unit at a time. Used by one thread."""

    @property
    def size(self) -> int: ...

    def submit(self, worker: int, assignment: Assignment) -> None:
        """Hand a unit to a worker that is ready and idle."""

    def wait(self, timeout_s: float) -> list[Event]:
        """What happened, as soon as anything has, at the latest after timeout_s (then often nothing)."""

    def progress(self) -> Mapping[int, Progress]:
        """What each worker that has a unit last said of it."""

    def replace(self, worker: int, reason: str) -> None:
        """Kill a worker and start another in its place; no Death is reported for it."""

    def close(self) -> None:
        """Kill every worker."""


def check_precision(precision: str, gpu: bool) -> None:
    """UsageError where workers could not build their models as set; they would die of it one after another."""
    if precision == "fp16" and not gpu:
        raise UsageError("precision fp16 needs workers with a GPU; set precision = 'fp32' in [model]")


class Engine(Protocol):
    """Where workers come from. A context manager: leaving it ends what it started."""

    name: str

    def check(self, source: str, destination: str, config: Config) -> None:
        """UsageError if workers cannot be had as set, or a local path is not seen by every machine that may have one."""

    def start(self, context: ScoringContext) -> WorkerPool:
        """Workers for one scoring."""

    def close(self) -> None:
        """End what this engine started; clusters that were there before go on."""
