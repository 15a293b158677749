"""Read how many workers a run may have: a number, or a range such as `4:64`."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticCustomError


def worker_count(value: Any) -> Any:
    """Return a number of workers, or a range as it was written. Values that are no text pass through.

    Raises ValueError if a text is neither.
    """
    if not isinstance(value, str):
        return value
    least, colon, most = value.partition(":")
    if not least.isdecimal() or (colon and not most.isdecimal()):
        raise PydanticCustomError("workers", "must be a number, or MIN:MAX such as '4:64'")
    if not colon:
        return int(least)
    if not 1 <= int(least) <= int(most):
        raise PydanticCustomError("workers", "of MIN:MAX, MIN must be 1 or more, and at most MAX")
    return value


def least_of(workers: int | str | None) -> int | None:
    """Return the workers for which there must be room, or None if they are not a range."""
    return int(workers.partition(":")[0]) if isinstance(workers, str) else None


def most_of(workers: int | str | None) -> int | None:
    """Return the number of workers, or the most that a range allows; None if it is not set."""
    return int(workers.partition(":")[2]) if isinstance(workers, str) else workers
