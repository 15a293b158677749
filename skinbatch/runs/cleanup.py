"""Delete what a snapshot does not name.

Before each batch of deletes, the driver checks that its own snapshot is still the newest.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice

from skinbatch.errors import ClaimError, NotFoundError
from skinbatch.runs import layout, snapshot
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.merging import Moved, replace_stale, superfluous
from skinbatch.runs.snapshot import Snapshot

_BATCH = 1000
_LOOK_AGAIN_S = (0.0, 0.5, 2.0, 5.0)


def clean_up(ledger: Ledger, own: Snapshot, fresh: bool = False) -> int:
    """Delete everything that the new snapshot makes unnecessary, and return the number of objects.

    In this order: receipts that the snapshot does not name, data files that none of its receipts
    names, folds and records of deaths, and files that dead writers left unfinished. Merged files
    in which a unit is not named any more are replaced first.

    Args:
        fresh: nothing was handed out since the ledger was listed, so it need not be listed again.

    Raises:
        ClaimError: another run's snapshot is the newest that counts, or another command deletes
            files here (exit code 7).
    """
    try:
        return _clean_up(ledger, own, fresh)
    except NotFoundError as e:
        raise ClaimError(
            f"{e}: another run or `skinbatch compact` is at work here; nothing is lost, run the same command again"
        ) from None


def _clean_up(ledger: Ledger, own: Snapshot, fresh: bool) -> int:
    if not fresh:
        ledger.list_again()
    check(ledger, own)
    moved = replace_stale(ledger, own.receipts)
    if moved.written:
        ledger.list_again()
        check(ledger, own)
    deleted = since_listed = 0
    for batch in _batches(_stale(ledger, own, moved)):
        # Listing everything before every batch would take longer than scoring: as many requests
        # would list as delete.
        if since_listed > ledger.keys:
            ledger.list_again()
            check(ledger, own)
            since_listed = 0
        else:
            _check_newest(ledger, own)
        ledger.store.delete(batch)
        since_listed += len(batch)
        deleted += len(batch)
    if deleted:
        ledger.list_again()
        check(ledger, own)
    for batch in _batches(_needless(ledger)):
        _check_newest(ledger, own)
        ledger.store.delete(batch)
        deleted += len(batch)
    temporary = ledger.store.clear_temporary(ledger.prefixes())
    check(ledger, own)
    return deleted + temporary


def check(ledger: Ledger, own: Snapshot) -> None:
    """Raise ClaimError unless `own` is the newest snapshot that counts, according to the ledger."""
    if snapshot.counts(own):
        _check_newest(ledger, own)
    else:
        _look_again(ledger, own)


def _check_newest(ledger: Ledger, own: Snapshot) -> None:
    """Check the same for an own snapshot that was seen to count: one request if nobody else writes
    snapshots.
    """
    if snapshot.names(ledger.store, ledger.fingerprint)[:1] == [own.name]:
        return
    _look_again(ledger, own)


def _look_again(ledger: Ledger, own: Snapshot) -> None:
    """Look again when a listing lacks something: without a newer snapshot, it may be an old
    listing.
    """
    for seconds in _LOOK_AGAIN_S:
        time.sleep(seconds)
        ledger.list_again()
        newest = snapshot.newest_that_counts(ledger)
        if newest is not None and newest.name == own.name and snapshot.counts(own):
            return
        if newest is not None and layout.newest_first([newest.name, own.name])[0] != own.name:
            raise ClaimError(
                f"{ledger.store.uri}: another run has written snapshot {newest.name} over this run's {own.name}; nothing is "
                "lost, run the same command again"
            )
    raise ClaimError(
        f"{ledger.store.uri}: the listing does not show this run's snapshot {own.name} and everything it names: the listing is "
        "late, or another run is cleaning up here; nothing is lost, run the same command again"
    )


def _stale(ledger: Ledger, own: Snapshot, moved: Moved) -> Iterator[str]:
    """Yield the keys to delete, in the order in which they must be deleted."""
    named = own.receipts
    needless = superfluous(ledger, named, moved)
    for stub in ledger.receipts_besides(named):
        yield stub.key(ledger.fingerprint)
    yield from sorted(ledger.strays)
    yield from ledger.files_besides(named)
    yield from needless


def _needless(ledger: Ledger) -> Iterator[str]:
    """Yield the keys of folds and records of deaths, which no snapshot names."""
    for prefix in (
        layout.folds_prefix(ledger.fingerprint),
        layout.attempts_prefix(ledger.fingerprint),
    ):
        for info in ledger.store.list(prefix):
            yield info.key


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    waiting = iter(keys)
    while batch := list(islice(waiting, _BATCH)):
        yield batch
