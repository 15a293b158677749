"""Tell which photos of a listing have rows in a destination already, without reading tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from skinbatch.runs import plan
from skinbatch.runs.ledger import Ledger
from skinbatch.runs.listed import Listing
from skinbatch.runs.plan import Plan
from skinbatch.runs.versions import compare_photos
from skinbatch.storage.store import Store
from skinbatch.types import ShardRef


@dataclass(frozen=True, slots=True)
class Standing:
    """Hold what of a listing is scored and what is to be scored.

    scored: photos that have rows. photos: table of the loose photos to score. shards: those to
    score, each with the photos of its open units; None where nobody has counted them.
    """

    scored: int
    photos: pa.Table
    shards: tuple[tuple[ShardRef, int | None], ...]


def read_standing(
    store: Store, fingerprint: str, listing: Listing, newest: Plan | None
) -> Standing:
    """Compare a listing with the newest plan and its receipts.

    A loose photo has a row if a finished unit has it with the same size and version, a shard if all
    its units are finished and it is the same file.
    """
    if newest is None:
        return Standing(0, listing.photos, tuple((shard, None) for shard in listing.shards))

    ledger = Ledger.load(store, fingerprint)
    finished: list[str] = []
    rows: Counter[ShardRef] = Counter()
    still_open: dict[ShardRef, int | None] = {}
    for unit in newest.units:
        proof = ledger.proof(unit.unit_id, unit.inputs_sha256)
        if unit.shard is None:
            if proof is not None:
                finished.append(unit.unit_id)
        elif proof is not None:
            rows[unit.shard] += sum(stub.rows for stub in proof)
        else:
            before = still_open.get(unit.shard, 0)
            known = unit.count is not None and before is not None
            still_open[unit.shard] = (before or 0) + (unit.count or 0) if known else None

    scored, photos = _loose(store, fingerprint, listing, newest, finished)
    shards = []
    for shard in listing.shards:
        scored += rows[shard]
        if shard in still_open or shard not in rows:
            shards.append((shard, still_open.get(shard)))
    return Standing(scored, photos, tuple(shards))


def _loose(
    store: Store, fingerprint: str, listing: Listing, newest: Plan, finished: list[str]
) -> tuple[int, pa.Table]:
    """Return the number of loose photos that have rows, and a table of the others."""
    units = pa.array(finished, pa.string())
    known = []
    for name in sorted({unit.members for unit in newest.units if unit.members}):
        members = plan.read_members(store, fingerprint, newest, name)
        members = members.select(["image_id", "size", "version", "unit_id"])
        known.append(members.filter(pc.is_in(members.column("unit_id"), value_set=units)))
    if not known:
        return 0, listing.photos

    _, unchanged = compare_photos(listing.photos, pa.concat_tables(known))
    scored = int(pc.sum(unchanged).as_py() or 0)
    return scored, listing.photos.filter(pc.invert(unchanged))
