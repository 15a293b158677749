"""Define what can happen while units are scored, as values, and pass it to whoever subscribes.

The scheduler publishes. The log, the record, the totals, the notes and the ledger subscribe. Two
events come from the pool as they are: WorkerReady and PoolMessage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from skinbatch.engines.pool import PoolMessage, WorkerReady
from skinbatch.scoring.assignment import Assignment, UnitDone, UnitFailed
from skinbatch.types import WorkUnit


@dataclass(frozen=True, slots=True)
class UnitCommitted:
    """Report that a worker has committed a unit."""

    assignment: Assignment
    outcome: UnitDone


@dataclass(frozen=True, slots=True)
class UnitDrifted:
    """Report that a unit was not committed, because what it names has changed since it was planned."""

    assignment: Assignment
    outcome: UnitFailed


@dataclass(frozen=True, slots=True)
class UnitRetried:
    """Report that a unit will be tried again unchanged.

    outcome: of the attempt; None if its worker or machine is gone.
    """

    assignment: Assignment
    reason: str
    outcome: UnitFailed | None = None


@dataclass(frozen=True, slots=True)
class UnitHalved:
    """Report that the halves of a unit will be scored in its place."""

    unit: WorkUnit


@dataclass(frozen=True, slots=True)
class UnitOpen:
    """Report that a unit stays open for the next run.

    outcome: of the attempt; None if there is none, or if another event holds it.
    """

    unit_id: str
    message: str
    outcome: UnitFailed | None = None


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """Report that a unit has killed its worker, or made it hang (`timed_out`).

    outcome: of an attempt that ran out of memory, which counts as a death; otherwise None.
    """

    unit: WorkUnit
    reason: str
    timed_out: bool
    outcome: UnitFailed | None = None


@dataclass(frozen=True, slots=True)
class WorkersReleased:
    """Report that workers were ended because no unit is left for them."""

    workers: frozenset[int]


@dataclass(frozen=True, slots=True)
class StoreTrouble:
    """Report that a worker has trouble with a store and is trying again."""

    text: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Report progress, a few times a second. photos_in_flight: finished within unfinished units."""

    photos_in_flight: int


RunEvent = (
    WorkerReady
    | PoolMessage
    | UnitCommitted
    | UnitDrifted
    | UnitRetried
    | UnitHalved
    | UnitOpen
    | WorkerDied
    | WorkersReleased
    | StoreTrouble
    | Tick
)
Subscriber = Callable[[RunEvent], None]


class Events:
    """Pass each event to all subscribers, in the order in which they subscribed."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, *subscribers: Subscriber) -> None:
        self._subscribers += subscribers

    def publish(self, event: RunEvent) -> None:
        for subscriber in self._subscribers:
            subscriber(event)
