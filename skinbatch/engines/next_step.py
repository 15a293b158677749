"""Decide what becomes of a unit after its attempt ended without a result.

The decision depends only on the unit's history, so it can be read, and tested, as a table.
"""

from __future__ import annotations

from dataclasses import dataclass

from skinbatch.types import Status

DEATHS_TO_HALVE = 2
DEATHS_TO_BLAME = 3
# Pauses before a unit is tried again after a store failure, as fractions of the store's timeout: 1
# and 4 minutes by default. A store that restarts refuses everything for a while, and without pauses
# a worker would use up the tries of all units within seconds.
STORE_PAUSES = (1 / 8, 1 / 2)
# After this many lost machines under one unit, the unit is the likelier cause, and it stays open.
MOST_LOST_MACHINES = 10


@dataclass(frozen=True, slots=True)
class Deaths:
    """Count the workers that died of a unit. reason, timed_out: of the last death."""

    count: int = 0
    reason: str = ""
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """Try the unit again as it is. pause: to wait before, as a fraction of the store's timeout."""

    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Count:
    """Count the members of the unit's shard first, because their number is not known."""


@dataclass(frozen=True, slots=True)
class Halve:
    """Divide the unit into two, to find the photo that kills its workers."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Give the unit's only photo this status and error, without decoding it."""

    status: Status
    error: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Leave the unit open for the next run."""

    message: str


def after_death(deaths: Deaths, members: int | None) -> Retry | Count | Halve | Verdict:
    """Return what to do with a unit of which workers have died.

    members: number of photos in the unit; None for a shard whose members nobody has counted.

    >>> after_death(Deaths(2, "exit code -9"), members=40)
    Halve()
    """
    if deaths.count < DEATHS_TO_HALVE:
        return Retry()
    if members is None:
        return Count()
    if members > 1:
        return Halve()
    if deaths.count < DEATHS_TO_BLAME:
        return Retry()
    return verdict(deaths)


def after_store_failure(tries: int, message: str) -> Retry | GiveUp:
    """Return what to do with a unit whose store has failed this many times."""
    if tries > len(STORE_PAUSES):
        return GiveUp(message)
    return Retry(STORE_PAUSES[tries - 1])


def after_lost_machine(lost: int, reason: str) -> Retry | GiveUp:
    """Return what to do with a unit under which this many machines were lost."""
    if lost > MOST_LOST_MACHINES:
        return GiveUp(f"{MOST_LOST_MACHINES} machines were lost while scoring it: {reason}")
    return Retry()


def verdict(deaths: Deaths) -> Verdict:
    """Return the status and error of the photo that is to blame for deaths."""
    status = Status.TIMEOUT if deaths.timed_out else Status.CRASHED
    return Verdict(status, f"after {deaths.count} attempts: {deaths.reason}")
