"""Keep in a listing what an earlier run has listed, as it was then, for `--only-new`."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from skinbatch.runs.listed import Listing
from skinbatch.runs.versions import compare_photos

CHANGED = "(changed, left by --only-new)"


def only_new(listing: Listing, planned: Listing, skipped: Counter[str]) -> Listing:
    """Return everything that was planned, as it was planned, and what is new in a listing.

    Photos and shards that have changed or are gone stay in the plan as they were, so their rows
    still count.

    Args:
        listing: The source as it is listed now.
        planned: The listing of the newest plan.
        skipped: Counts what has changed since, as CHANGED.
    """
    known, unchanged = compare_photos(listing.photos, planned.photos)
    new_photos = listing.photos.filter(pc.invert(known))
    shards = {shard.key: shard for shard in planned.shards}
    new_shards = [shard for shard in listing.shards if shard.key not in shards]

    changed = pc.sum(pc.and_not(known, unchanged)).as_py() or 0
    changed += sum(shards.get(shard.key, shard) != shard for shard in listing.shards)
    if changed:
        skipped[CHANGED] += changed
    photos = pa.concat_tables([planned.photos, new_photos])
    return Listing(photos, (*planned.shards, *new_shards))
