"""Leave old photos out of a listing for `--since`, but keep those that an earlier run planned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain

from skinbatch.errors import UsageError
from skinbatch.runs.hash_groups import key_hash
from skinbatch.runs.listed import Listing
from skinbatch.types import ImageRef, ShardRef

OLDER = "(modified before --since)"


def only_since(
    entries: Iterable[ImageRef | ShardRef],
    moment: datetime,
    planned: Listing | None,
    skipped: Counter[str],
) -> Iterator[ImageRef | ShardRef]:
    """Yield the entries that were modified at `moment` or later, and those that an earlier run has planned.

    What was planned once stays in the plan, whatever its age: otherwise the next plan would drop the rows of everything
    that was scored before, and units that an earlier run could not finish would be forgotten.

    Args:
        entries: The source as listed now.
        moment: With its time zone.
        planned: The listing of the newest plan, None before the first.
        skipped: Counts what is left out, as OLDER.

    Raises:
        UsageError: If an entry has no modification time.
    """
    known = _hashes(planned) if planned is not None else set()
    for entry in entries:
        name = entry.key if isinstance(entry, ShardRef) else entry.image_id
        if key_hash(name) in known:
            yield entry
        elif entry.modified is None:
            raise UsageError(
                f"{entry.uri}: the listing does not give its modification time, which --since needs; leave out --since "
                "and list only what is to be scored"
            )
        elif entry.modified >= moment.timestamp():
            yield entry
        else:
            skipped[OLDER] += 1


def _hashes(planned: Listing) -> set[int]:
    ids = (
        name
        for batch in planned.photos.select(["image_id"]).to_batches()
        for name in batch.column(0).to_pylist()
    )
    return {key_hash(name) for name in chain(ids, (shard.key for shard in planned.shards))}
