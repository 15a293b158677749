"""Describe the outcome of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RunReport:
    """Hold the result of `skinbatch.score`.

    exit_code: see docs/exit-codes.md. statuses: rows of the whole scoring by status, after this
    run. scored, copied: rows that this run computed, and rows taken from older results. skipped:
    listed files that are no photos, by extension. left: units still to be done, with the reason if
    one failed. images, boxes: where the tables are.
    """

    exit_code: int
    message: str
    destination: str
    fingerprint: str
    images: str
    boxes: str
    nothing_to_do: bool = False
    rows: int = 0
    scored: int = 0
    copied: int = 0
    vanished: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    units: int = 0
    units_left: int = 0
    left: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    photos_per_second: float = 0.0

    @property
    def failed(self) -> int:
        """Return the number of rows that are not ok."""
        return self.rows - self.statuses.get("ok", 0)
