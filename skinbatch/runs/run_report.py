"""Describe the outcome of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from skinbatch.runs.cost import Cost


@dataclass(frozen=True, slots=True)
class RunReport:
    """Hold the result of `skinbatch.score`.

    Attributes:
        exit_code: See docs/exit-codes.md.
        message: One sentence on how the run ended.
        destination: Address of the destination.
        fingerprint: The scoring that the run worked on.
        images, boxes: Where the tables are.
        nothing_to_do: Whether every photo had a row before the run.
        rows: Rows of the whole scoring after this run.
        scored, copied: Rows that this run computed, and rows that it took from older results.
        taken: Stage and number of photos for which this run took its results from an earlier scoring.
        taken_from: Fingerprint of that scoring; None if the scoring takes nothing.
        vanished: Photos that were listed and then gone.
        statuses: Rows of the whole scoring by status, after this run.
        skipped: Number of listed files that are no photos, by extension.
        units, units_left: Units of the plan, and those still to be done.
        left: Units still to be done, with the reason if one failed.
        seconds: Duration of the run.
        photos_per_second: Scored photos for each second of the run.
        cost: Worker-seconds, requests and bytes of the run.
        money: Its price in `currency`, None unless [prices] are set.
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
    taken: Mapping[str, int] = field(default_factory=dict)
    taken_from: str | None = None
    units: int = 0
    units_left: int = 0
    left: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    photos_per_second: float = 0.0
    cost: Cost = field(default_factory=Cost)
    money: float | None = None
    currency: str | None = None

    @property
    def failed(self) -> int:
        """Return the number of rows that are not ok."""
        return self.rows - self.statuses.get("ok", 0)
