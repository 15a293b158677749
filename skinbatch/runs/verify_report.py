"""Hold the result of `skinbatch verify`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class VerifyReport:
    """Hold the result of `verify`.

    Attributes:
        fingerprint: The scoring that was checked.
        snapshot, plan: Names of the snapshot and its plan; None if the scoring is not finished.
        photos: Photos that the plan lists, members of shards included.
        rows, boxes, files: Rows of `images`, rows of `boxes`, and data files that were read.
        units_left: Planned units without a receipt.
        differences: One sentence for each problem, with the names of files and photos; empty if
            everything agrees.
    """

    fingerprint: str
    snapshot: str | None = None
    plan: str | None = None
    photos: int = 0
    rows: int = 0
    boxes: int = 0
    files: int = 0
    units_left: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """Return 0 if everything agrees, else 5."""
        return 5 if self.differences else 0
