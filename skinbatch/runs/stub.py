"""Keep in memory the little of a receipt that decides whether it counts.

A destination may have hundreds of thousands of receipts.
"""

from __future__ import annotations

from dataclasses import dataclass

from skinbatch.runs import layout
from skinbatch.runs.merged import MergedFile
from skinbatch.types import MergedPart

BITS = {kind: 1 << n for n, kind in enumerate(layout.DATA_KINDS)}
# The bit of the receipt itself.
LISTED = 1 << len(BITS)


@dataclass(slots=True, eq=False)
class Stub:
    """Hold a receipt's name, whether it and its files exist, and what decides whether it counts.

    there: bits of what was listed under its own name. merged: files that hold tables of its unit
    among others. needed: bits of the files that it names and of itself. whole: whole_sha256 as bytes,
    None while the receipt has not been read. statuses: rows by status. text: number of its text in
    the ledger's pages.
    """

    unit_id: str
    generation: int
    attempt: str
    there: int = 0
    needed: int = LISTED
    whole: bytes | None = None
    statuses: tuple[tuple[str, int], ...] = ()
    shard_size: int | None = None
    text: int = -1
    merged: tuple[MergedFile, ...] = ()

    @property
    def listed(self) -> bool:
        """Return whether the receipt itself exists."""
        return bool(self.there & LISTED)

    @property
    def present(self) -> int:
        """Return the bits of what exists, under its own name or in a merged file."""
        bits = self.there
        for file in self.merged:
            bits |= BITS[file.kind]
        return bits

    @property
    def complete(self) -> bool:
        """Return whether it was read and exists with all the files that it names."""
        return self.whole is not None and not self.needed & ~self.present

    @property
    def rows(self) -> int:
        """Return the rows of its images file, one for each photo."""
        return sum(count for _, count in self.statuses)

    @property
    def failed(self) -> int:
        """Return the number of rows that are not ok."""
        return sum(count for status, count in self.statuses if status != "ok")

    def key(self, fingerprint: str) -> str:
        """Return the key of the receipt."""
        return layout.receipt_key(fingerprint, self.unit_id, self.generation, self.attempt)

    def files(self, fingerprint: str, bits: int) -> list[str]:
        """Return the keys of its data files of these kinds."""
        kinds = (kind for kind, bit in BITS.items() if bits & bit)
        return [layout.data_key(kind, fingerprint, self.unit_id, self.attempt) for kind in kinds]

    def part(self, kind: str) -> MergedPart | None:
        """Return where a merged file holds its table of a kind; None if none does."""
        for file in self.merged:
            if file.kind == kind:
                return file.part(self.unit_id, self.attempt)
        return None
