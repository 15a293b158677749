"""Choose the photos that `skinbatch plan` really scores, and count photos in shards from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skinbatch.archive.shard import ShardReader, count_members
from skinbatch.config import DecodeSettings
from skinbatch.runs.listed import refs
from skinbatch.storage.locate import Locator
from skinbatch.types import ShardRef, WorkUnit

# Most shards that are opened for the sample.
_SHARDS = 8
# Fewest units that are measured, if there are photos enough: the interval comes from how they differ.
_UNITS = 8
# Photos that a worker scores before anything is measured.
_WARM_UP = 4
# Members of a tar whose size is looked at.
_MEMBERS = 32
# Bytes of a tar beside a photo: its header, and half a block of padding.
_TAR_OVERHEAD = 768


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """Hold the number of photos in some shards.

    photos: the sum. exact: whether each shard was counted. largest: photos of the largest shard.
    """

    photos: int
    exact: bool
    largest: int


def count_shards(
    shards: Sequence[tuple[ShardRef, int | None]], locator: Locator, decode: DecodeSettings
) -> ShardCounts:
    """Count the photos of shards, from those that are known and from a few that are opened.

    A zip's directory and a Parquet file's footer give the number. A tar has none, so it is estimated
    from the size of its first photos.
    """
    known = {shard: count for shard, count in shards if count is not None}
    unknown = [shard for shard, count in shards if count is None]
    exact = True
    opened = drawn(unknown, _SHARDS)
    for shard in opened:
        if shard.kind == "tar":
            exact = False
            known[shard] = _photos_of_tar(shard, locator, decode)
        else:
            known[shard] = count_members(shard, locator)

    rest = [shard for shard in unknown if shard not in known]
    if rest:
        exact = False
        size = sum(shard.size for shard in opened)
        share = sum(known[shard] for shard in opened) / size if size else 0.0
        known |= {shard: round(shard.size * share) for shard in rest}
    return ShardCounts(sum(known.values()), exact, max(known.values(), default=0))


def _photos_of_tar(shard: ShardRef, locator: Locator, decode: DecodeSettings) -> int:
    """Return about how many photos a tar has."""
    sizes = []
    for fetched in ShardReader(shard, locator, decode, 0, _MEMBERS):
        if fetched.data is not None:
            sizes.append(len(fetched.data) + _TAR_OVERHEAD)
    if len(sizes) < _MEMBERS:  # that was all of it
        return len(sizes)
    return round(shard.size / (sum(sizes) / len(sizes)))


def drawn(shards: Sequence[ShardRef], most: int) -> list[ShardRef]:
    """Return up to `most` shards, spread over the listing."""
    if len(shards) <= most:
        return list(shards)
    places = np.linspace(0, len(shards) - 1, most).round().astype(int)
    return [shards[place] for place in places]


def sample_units(
    photos: pa.Table, shards: Sequence[ShardRef], of_shards: int, size: int
) -> tuple[list[WorkUnit], WorkUnit]:
    """Choose units to score, and one to warm workers up with.

    Args:
        photos: The loose photos that are to be scored.
        shards: The shards that are to be scored.
        of_shards: About how many photos the shards have.
        size: Photos in the sample.

    Returns:
        Units with `size` photos in all, or as many as there are: loose photos drawn at random, the
        same ones each time, and the first members of up to 8 shards, in the proportion in which
        they are to be scored.
    """
    total = photos.num_rows + of_shards
    size = min(size, total)
    members = round(size * of_shards / total) if total else 0
    if shards and not members and size:
        members = 1
    each = max(1, math.ceil(size / _UNITS))

    units = []
    count = min(photos.num_rows, size - members)
    places = np.random.default_rng(0).permutation(photos.num_rows)[:count]
    chosen = photos.take(pa.array(places, pa.int64()))
    for number, start in enumerate(range(0, count, each)):
        units.append(WorkUnit(f"sample-{number}", refs(chosen.slice(start, each))))

    opened = drawn(shards, _SHARDS) if members else []
    per_shard = math.ceil(members / len(opened)) if opened else 0
    for number, shard in enumerate(opened):
        for start in range(0, per_shard, each):
            stop = min(start + each, per_shard)
            units.append(WorkUnit(f"shard-{number}-{start}", shard=shard, start=start, stop=stop))
    return units, _warm_up(units)


def _warm_up(units: Sequence[WorkUnit]) -> WorkUnit:
    first = next(iter(units))
    if first.shard is None:
        return replace(first, unit_id="warm-up", images=tuple(islice(first.images, _WARM_UP)))
    return replace(first, unit_id="warm-up", stop=first.start + _WARM_UP)


def bytes_of(photos: pa.Table, shards: Sequence[ShardRef]) -> int:
    """Return the bytes of photos and shards, as far as the listing gives them."""
    loose = pc.sum(photos.column("size")).as_py() or 0
    return int(loose) + sum(shard.size for shard in shards)
