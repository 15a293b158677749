"""Hold what a source lists now, as columns, and apply the changes that workers find in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from skinbatch.runs.apart import tell_apart
from skinbatch.runs.row_buffer import RowBuffer
from skinbatch.types import ImageRef, ShardRef

LISTED_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("version", pa.string()),
        ("meta", pa.string()),
    ]
)
# Number of photos that exist as Python objects before they become columns.
_CHUNK = 50_000


@dataclass(frozen=True, slots=True)
class Listing:
    """Hold a source as it is listed now.

    photos: Arrow table of image_id, uri, size, version and meta (JSON text). shards: its shards.
    forget: frees the memory of photos that were looked at, if they are in a temporary file.
    """

    photos: pa.Table
    shards: tuple[ShardRef, ...]
    forget: Callable[[], None] = field(default=lambda: None, compare=False)

    @property
    def empty(self) -> bool:
        return not self.photos.num_rows and not self.shards


def collect(
    entries: Iterable[ImageRef | ShardRef], on_count: Callable[[int], None] = lambda n: None
) -> Listing:
    """Collect the entries of a source as columns; of two with the same image_id, the first wins."""
    gathered = RowBuffer(LISTED_SCHEMA)
    rows: list[ImageRef] = []
    shards: dict[str, ShardRef] = {}

    def flush() -> None:
        columns = [
            [r.image_id for r in rows],
            [r.uri for r in rows],
            [r.size for r in rows],
            [r.version for r in rows],
            [_meta_text(r.meta) for r in rows],
        ]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, LISTED_SCHEMA, strict=True)]
        gathered.add(pa.RecordBatch.from_arrays(arrays, schema=LISTED_SCHEMA))
        rows.clear()

    for count, entry in enumerate(entries, 1):
        if isinstance(entry, ShardRef):
            shards.setdefault(entry.key, entry)
        else:
            rows.append(entry)
            if len(rows) >= _CHUNK:
                flush()
        if count % 1000 == 0:
            on_count(count)
    flush()
    photos, forget = gathered.table()
    return Listing(*tell_apart(photos, shards), forget)


def amend(listing: Listing, changed: Mapping[str, ImageRef], vanished: Iterable[str]) -> Listing:
    """Return the listing with what workers found: photos that changed while they were read or are
    gone.
    """
    gone = set(vanished) | set(changed)
    kept = listing.photos.filter(
        pc.invert(pc.is_in(listing.photos.column("image_id"), pa.array(sorted(gone), pa.string())))
    )
    again = collect(changed.values())
    return Listing(pa.concat_tables([kept, again.photos]), listing.shards)


def replace_shards(listing: Listing, shards: Mapping[str, ShardRef | None]) -> Listing:
    """Return the listing with new versions of shards; None for one that is gone."""
    now = [shards.get(s.key, s) for s in listing.shards]
    return Listing(listing.photos, tuple(s for s in now if s is not None))


def refs(table: pa.Table) -> tuple[ImageRef, ...]:
    """Return the photos in the rows of a table of LISTED_SCHEMA."""
    columns = (
        table.column(name).to_pylist() for name in ("image_id", "uri", "size", "version", "meta")
    )
    return tuple(
        ImageRef(i, uri, size, version, json.loads(meta) if meta else {})
        for i, uri, size, version, meta in zip(*columns, strict=True)
    )


def _meta_text(meta: Mapping[str, str]) -> str | None:
    return (
        json.dumps(dict(sorted(meta.items())), ensure_ascii=False, separators=(",", ":"))
        if meta
        else None
    )
