"""Keep in a listing what an earlier run has listed, as it was then, for `--only-new`."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from skinbatch.runs.listed import Listing

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
    place = pc.index_in(
        listing.photos.column("image_id"), value_set=planned.photos.column("image_id")
    )
    known = pc.is_valid(place)
    new_photos = listing.photos.filter(pc.invert(known))
    shards = {shard.key: shard for shard in planned.shards}
    new_shards = [shard for shard in listing.shards if shard.key not in shards]

    before = planned.photos.take(pc.drop_null(place))
    changed = _different(listing.photos.filter(known), before)
    changed += sum(shards.get(shard.key, shard) != shard for shard in listing.shards)
    if changed:
        skipped[CHANGED] += changed
    photos = pa.concat_tables([planned.photos, new_photos])
    return Listing(photos, (*planned.shards, *new_shards))


def _different(now: pa.Table, before: pa.Table) -> int:
    """Return the number of photos whose size or version differs. The rows are of the same photos."""
    same = pa.array([True] * now.num_rows, pa.bool_())
    for name in ("size", "version"):
        equal = pc.fill_null(pc.equal(now.column(name), before.column(name)), False)
        both_null = pc.and_(pc.is_null(now.column(name)), pc.is_null(before.column(name)))
        same = pc.and_(same, pc.or_(equal, both_null))
    return int(pc.sum(pc.invert(same)).as_py() or 0)
