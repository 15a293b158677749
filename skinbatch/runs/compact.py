"""Merge the small files of a scoring's tables.

How it stays safe: docs/decisions/merged-files.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from skinbatch.errors import ClaimError, NotFoundError, UsageError
from skinbatch.runs import destination, layout, snapshot
from skinbatch.runs.claim import Claim, claimed
from skinbatch.runs.destination import MERGED_LAYOUT_VERSION
from skinbatch.runs.holdings import find_holdings
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.merging import (
    MOST_UNITS,
    TARGET_BYTES,
    MergeInput,
    Merger,
    replace_stale,
    superfluous,
)
from skinbatch.runs.record import next_id
from skinbatch.runs.snapshot import Snapshot
from skinbatch.runs.stub import BITS
from skinbatch.storage.store import Store
from skinbatch.types import MergedPart

# Larger files stay as they are.
SMALL_BYTES = TARGET_BYTES // 2
_SMALL_UNITS = MOST_UNITS // 2


@dataclass(frozen=True, slots=True)
class Compacted:
    """Hold what `compact` has done.

    Attributes:
        scoring: Fingerprint of the scoring.
        files_before, files_after: Data files of the scoring's snapshot.
        bytes_before, bytes_after: Their sizes together.
        merged: Files that were written.
        left_behind: Files of an earlier, interrupted command that were removed first.
    """

    scoring: str
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    merged: int
    left_behind: int


def compact(
    store: Store,
    *,
    scoring: str | None = None,
    on_wait: Callable[[str], None] = lambda holder: None,
    progress: Callable[[int, int], None] = lambda done, files: None,
) -> Compacted:
    """Merge the files of a finished scoring that are under 64 MB into files of about 128 MB.

    Rows, receipts and snapshots stay as they are. An interrupted call is continued by the next one.

    Args:
        store: A destination.
        scoring: Its fingerprint or the first digits. None: that of the newest run.
        on_wait: Called with a description of the holder while another's claim is watched.
        progress: Called with the number of files that were read, and of all files.

    Raises:
        UsageError: The scoring is not finished.
        ClaimError: A run or another `compact` is using the destination (exit code 7).
        TableError: A file is damaged.
    """
    described = destination.require_destination(store)
    destination.require_current(store, described)
    fingerprint = destination.choose_scoring(store, scoring)
    with claimed(store, next_id(store), "compact", on_wait) as claim:
        ledger = Ledger.load(store, fingerprint)
        current = snapshot.newest_that_counts(ledger)
        if current is None or snapshot.names(store, fingerprint)[0] != current.name:
            raise UsageError(
                f"{store.uri}: scoring {fingerprint} is not finished, or files of it are gone; run the same "
                "`skinbatch score` again, then compact"
            )
        return _Compaction(ledger, current, claim).run(progress)


class _Compaction:
    def __init__(self, ledger: Ledger, current: Snapshot, claim: Claim) -> None:
        self.ledger = ledger
        self.store = ledger.store
        self.current = current
        self._named = current.receipts
        self._claim = claim

    def run(self, progress: Callable[[int, int], None]) -> Compacted:
        try:
            return self._run(progress)
        except NotFoundError as e:
            raise ClaimError(
                f"{e}: another run or `skinbatch compact` is at work here; nothing is lost, run the same command again"
            ) from None

    def _run(self, progress: Callable[[int, int], None]) -> Compacted:
        left_behind = self._finish_earlier()
        files, size = self._files()
        done = 0

        def count() -> None:
            nonlocal done
            done += 1
            progress(done, files)

        merger = Merger(
            self.store,
            self.ledger.fingerprint,
            before_write=self._prepare,
            before_delete=self._check,
        )
        for kind in layout.DATA_KINDS:
            merger.move(self._small(kind), count)

        written, deleted = merger.done.written, merger.done.deleted
        return Compacted(
            scoring=self.ledger.fingerprint,
            files_before=files,
            files_after=files - len(deleted) + len(written),
            bytes_before=size,
            bytes_after=size - sum(deleted.values()) + sum(written.values()),
            merged=len(written),
            left_behind=left_behind,
        )

    def _finish_earlier(self) -> int:
        """Delete what an interrupted compaction or clean-up left, and return the number of files."""
        moved = replace_stale(self.ledger, self._named, self._prepare)
        if moved.written:
            self.ledger.list_again()
        keys = superfluous(self.ledger, self._named, moved)
        if keys:
            self._check()
            self.store.delete(keys)
            self.ledger.list_again()
        return len(keys) + self.store.clear_temporary(self.ledger.prefixes())

    def _files(self) -> tuple[int, int]:
        """Return the number and the bytes of the data files of the snapshot."""
        files, size = len(self.ledger.merged), sum(file.size for file in self.ledger.merged)
        for stub in self.current.receipts:
            for file in self.ledger.receipt(stub).files:
                if not isinstance(file, MergedPart):
                    files += 1
                    size += file.bytes
        return files, size

    def _small(self, kind: str) -> Iterator[MergeInput]:
        """Yield the small files of one kind, merged ones first, then in the snapshot's order."""
        for merged in find_holdings(self.ledger, self._named).kept:
            if merged.kind == kind and merged.size < SMALL_BYTES and len(merged) < _SMALL_UNITS:
                yield MergeInput.of_merged(merged, merged)

        for stub in self.current.receipts:
            if stub.there & BITS[kind]:
                for file in self.ledger.receipt(stub).files:
                    if file.kind == kind and file.bytes < SMALL_BYTES:
                        yield MergeInput.of_unit(stub, file)

    def _prepare(self) -> None:
        """Check that the rows to write still count, and mark the destination.

        Versions of skinbatch that do not know merged files refuse a marked destination.
        """
        self._check()
        described = destination.require_destination(self.store)
        if described.layout_version < MERGED_LAYOUT_VERSION:
            marked = replace(described, layout_version=MERGED_LAYOUT_VERSION)
            destination.write_destination(self.store, marked)

    def _check(self) -> None:
        """Raise ClaimError if another run has begun or ended here since."""
        newest = snapshot.names(self.store, self.ledger.fingerprint)[:1]
        if self._claim.lost is None and newest == [self.current.name]:
            return
        other = self._claim.lost or f"a run that has written snapshot {newest[0] if newest else ''}"
        raise ClaimError(
            f"{self.store.uri}: {other} has taken over the destination; nothing is lost, run the same command again"
        )
