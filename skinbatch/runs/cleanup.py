"""After a snapshot: away with what it does not name. Every batch of deletes asks first whether it is still ours to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from skinbatch.errors import ClaimError
from skinbatch.runs import layout, receipts, snapshot
from skinbatch.runs.receipts import Ledger
from skinbatch.runs.snapshot import Snapshot
from skinbatch.storage.base import Store

_BATCH = 1000


def clean_up(store: Store, fingerprint: str, own: Snapshot) -> int:
    """Delete receipts that the snapshot does not name, then data files that no receipt of it names, then folds and
    attempts, which the snapshot makes needless, then what writers that died left unfinished. Returns the number of objects
    deleted.

    Raises ClaimError (exit 7) when another run's snapshot is the newest that counts.
    """
    named_receipts = {receipts.key_of(fingerprint, r) for r in own.receipts}
    named_files = {f.path for r in own.receipts for f in r.files}
    deleted = 0

    def delete(prefix: str, named: set[str]) -> int:
        count = 0
        stale = (info.key for info in store.list(prefix) if info.key not in named)
        for batch in _batches(stale):
            still_newest(store, fingerprint, own)
            store.delete(batch)
            count += len(batch)
        return count

    deleted += delete(layout.receipts_prefix(fingerprint), named_receipts)
    for kind in layout.DATA_KINDS:
        deleted += delete(layout.data_prefix(kind, fingerprint), named_files)
    deleted += delete(layout.folds_prefix(fingerprint), set())
    deleted += delete(layout.attempts_prefix(fingerprint), set())
    still_newest(store, fingerprint, own)
    return deleted + store.clear_temporary()


def still_newest(store: Store, fingerprint: str, own: Snapshot) -> None:
    """Raise ClaimError unless `own` is the newest snapshot that counts."""
    found = snapshot.newest_that_counts(store, Ledger.listed(store, fingerprint))
    if found is None or found.name != own.name:
        raise ClaimError(
            f"{store.uri}: another run has written snapshot {found.name if found else 'nothing that counts'} over this "
            f"run's {own.name}; nothing is lost, run the same command again"
        )


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    waiting = iter(keys)
    while batch := list(islice(waiting, _BATCH)):
        yield batch
