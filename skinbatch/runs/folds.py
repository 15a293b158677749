"""Copy new receipts into folds, so that the next run reads few objects."""

from __future__ import annotations

from collections.abc import Callable

from skinbatch.errors import StoreError
from skinbatch.runs import receipts
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.stub import Stub


class Folds:
    """Write the folds of one run, one for every `receipts.FOLD_EVERY` receipts.

    note: called with a message if a fold cannot be written. That costs the next run some requests,
    and this run nothing.
    """

    def __init__(self, ledger: Ledger, note: Callable[[str], None]) -> None:
        self._ledger, self._note = ledger, note
        self._new: list[Stub] = [*ledger.read_singly]
        self._tried = 0
        self._due = receipts.FOLD_EVERY

    def add(self, stub: Stub) -> None:
        self._new.append(stub)
        if len(self._new) >= self._due:
            self.write()

    def write(self) -> None:
        """Write the receipts that are new since the last fold."""
        if not self._new:
            return
        self._tried += 1
        entries = self._ledger.entries(self._new)
        try:
            receipts.write_fold(self._ledger.store, self._ledger.fingerprint, self._tried, entries)
            self._new = []
        except StoreError as e:
            self._note(f"a copy of receipts was not written: {e}")
        self._due = len(self._new) + receipts.FOLD_EVERY
