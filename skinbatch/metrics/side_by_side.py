"""Hold the numbers of several scorings against one truth, for one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skinbatch.metrics.bootstrap import Estimate


@dataclass(frozen=True, slots=True)
class Number:
    """Hold one number of each scoring.

    name: such as `AP50`. digits: behind the point, for display. values: one for each scoring.
    """

    name: str
    digits: int
    values: tuple[Estimate, ...]

    def texts(self) -> list[str]:
        """Return `0.213 (0.190 to 0.237)` for each scoring; `–` if it is undefined."""
        return [_text(value, self.digits) for value in self.values]


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Hold the numbers of several scorings over the same photos.

    truth: what they were compared with. photos: judged, the same ones for all. over: what intervals
    resample, photos or groups. notes: what a reader should know.
    """

    truth: str
    photos: int
    over: str
    numbers: tuple[Number, ...]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return plain values; an undefined number is None."""
        numbers = {
            number.name: [
                {"value": _plain(v.value), "low": _plain(v.low), "high": _plain(v.high)}
                for v in number.values
            ]
            for number in self.numbers
        }
        return {
            "truth": self.truth,
            "photos": self.photos,
            "over": self.over,
            "numbers": numbers,
            "notes": list(self.notes),
        }

    def as_text(self, names: Sequence[str]) -> str:
        """Return a table with a column for each scoring. names: of the scorings."""
        rows = [["", *names], *([number.name, *number.texts()] for number in self.numbers)]
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        lines = [
            f"Against {self.truth}: the same {self.photos:,} photos for all, intervals over {self.over}"
        ]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append(("  " + "   ".join(cells)).rstrip())
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def _text(value: Estimate, digits: int) -> str:
    if not np.isfinite(value.value):
        return "–"
    ends = f" ({value.low:.{digits}f} to {value.high:.{digits}f})" if np.isfinite(value.low) else ""
    return f"{value.value:.{digits}f}{ends}"


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
