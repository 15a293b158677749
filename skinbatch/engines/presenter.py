"""Define how a run reports while it works: on the command line, in a notebook or silently."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Describe how far a run is.

    photos_total: photos known so far. total_known: false while members of a shard are still to be
    counted. failed: rows that are not ok. rate: photos per second over the last minute. left_s:
    seconds left, None while unknown.
    """

    photos_done: int
    photos_total: int
    units_done: int
    units_total: int
    failed: int
    rate: float
    left_s: float | None
    total_known: bool = True


class Presenter(Protocol):
    def phase(self, text: str) -> None:
        """Show what the run is doing now, in one line."""

    def note(self, text: str) -> None:
        """Show something that the user should know and that does not stop the run."""

    def progress(self, progress: RunProgress) -> None: ...


@dataclass(slots=True)
class SilentPresenter:
    """Keep the notes and show nothing."""

    notes: list[str] = field(default_factory=list)

    def phase(self, text: str) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, progress: RunProgress) -> None:
        """Show nothing."""
