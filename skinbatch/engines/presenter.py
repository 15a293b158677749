"""What a run says while it works; the command line shows it, a notebook may not want it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    photos_total: as far as known. total_known: false while the members of an archive file are still to be counted. failed:
    rows that are not ok. rate: photos a second over the last minute. left_s: time left, None while unknown.
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
        """What the run does now, one line."""

    def note(self, text: str) -> None:
        """Something that the user should know and that does not stop the run."""

    def progress(self, progress: Progress) -> None: ...


@dataclass(slots=True)
class Silent:
    """Keeps what was said and shows nothing."""

    notes: list[str] = field(default_factory=list)

    def phase(self, text: str) -> None:
        """Shows nothing."""

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, progress: Progress) -> None:
        """Shows nothing."""
