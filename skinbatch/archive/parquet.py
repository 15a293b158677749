"""Parquet files with photos in a column, by ranged reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skinbatch.archive.members import BrokenArchiveError, flat_meta
from skinbatch.archive.ranged import RangedFile
from skinbatch.storage.base import ObjectInfo, Store
from skinbatch.types import Fetched, ImageRef, ShardRef, Status

_MAGIC = b"PAR1"
_FOOTER = 1 << 16
_BATCH = 8
_NAMES = ("image", "img", "photo", "picture", "jpg", "jpeg", "png", "bytes")


class ParquetError(BrokenArchiveError):
    """Not a Parquet file that can be read."""


@dataclass(frozen=True, slots=True)
class Columns:
    """image: path of the column with the photos' bytes, None without one. others: columns that pass through.
    names: all columns."""

    image: str | None
    names: tuple[str, ...]
    others: tuple[str, ...]
    rows: int


def columns_of(store: Store, info: ObjectInfo) -> Columns:
    """From the footer, one ranged read. Raises ParquetError, StoreError."""
    file = open_parquet(RangedFile(store, info.key, info.size, info.version or None, block=_FOOTER))
    return _columns(file)


def open_parquet(file: RangedFile) -> pq.ParquetFile:
    """Raises ParquetError, StoreError."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 4))
    if file.read(4) != _MAGIC:
        file.seek(0)
        cut = _MAGIC.startswith(file.read(4))
        raise ParquetError(
            Status.TRUNCATED if cut else Status.CORRUPT, "has no Parquet footer" if cut else "not a Parquet file"
        )
    file.seek(0)
    try:
        return pq.ParquetFile(
            pa.PythonFile(file, mode="r"), buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True
        )
    except (pa.ArrowException, OSError) as e:
        raise ParquetError(Status.CORRUPT, f"Parquet footer that cannot be read: {e}") from None


def parquet_rows(file: RangedFile, shard: ShardRef, start: int, stop: int | None, limit: int) -> Iterator[Fetched]:
    """Rows [start, stop), named by their number in the file, other columns as meta.

    In a row group that is damaged, the rows from the damage on are `corrupt`. Raises ParquetError, StoreError.
    """
    parquet = open_parquet(file)
    columns = _columns(parquet)
    if columns.image is None:
        raise ParquetError(Status.CORRUPT, "has no column with photos")
    stop = columns.rows if stop is None else min(stop, columns.rows)
    first = 0
    for group in range(parquet.metadata.num_row_groups):
        end = first + parquet.metadata.row_group(group).num_rows
        if start < end and first < stop:
            row = first
            damage = f"row group {group} has fewer rows than its footer says"
            try:
                for batch in parquet.iter_batches(
                    _BATCH, row_groups=[group], columns=[columns.image, *columns.others], use_threads=False
                ):
                    begin, row = row, row + len(batch)
                    if row > start:
                        yield from _rows(batch, shard, columns.image, (begin, start, stop), limit)
                    if row >= stop:
                        return
            except (pa.ArrowException, OSError, ValueError, OverflowError) as e:
                damage = f"row group {group} does not read: {e}"
            for lost in range(max(row, start), min(end, stop)):
                yield Fetched(_ref(shard, lost, None, {}), None, Status.CORRUPT, f"{shard.uri}: {damage}")
        first = end


def _rows(
    batch: pa.RecordBatch, shard: ShardRef, image: str, place: tuple[int, int, int], limit: int
) -> Iterator[Fetched]:
    begin, start, stop = place
    column = image.partition(".")[0]
    photos = batch.column(column).to_pylist()
    others = {name: _values(batch.column(name)) for name in batch.schema.names if name != column}
    for at, photo in enumerate(photos):
        if not start <= begin + at < stop:
            continue
        data = photo.get("bytes") if isinstance(photo, dict) else photo
        meta = flat_meta({name: values[at] for name, values in others.items()})
        ref = _ref(shard, begin + at, data, meta)
        if data is None:
            yield Fetched(ref, None, Status.EMPTY, f"{ref.uri}: no bytes in column {column!r}")
        elif len(data) > limit:
            error = f"{ref.uri}: {len(data):,} bytes, over max_image_bytes ({limit:,}); raise it in [decode]"
            yield Fetched(ref, None, Status.TOO_LARGE, error)
        else:
            yield Fetched(ref, data)


def _values(column: pa.Array) -> list[Any]:
    """Times and decimals as text; Python has no value for some of them."""
    if pa.types.is_temporal(column.type) or pa.types.is_decimal(column.type):
        column = column.cast(pa.string())
    return column.to_pylist()


def _ref(shard: ShardRef, row: int, data: bytes | None, meta: dict[str, str]) -> ImageRef:
    size = None if data is None else len(data)
    return ImageRef(f"{shard.key}/{row}", f"{shard.uri}/{row}", size, shard.version, meta)


def _columns(parquet: pq.ParquetFile) -> Columns:
    schema = parquet.schema_arrow
    image = _image_column(schema)
    top = image.partition(".")[0] if image else None
    others = tuple(f.name for f in schema if f.name != top and not _holds_bytes(f.type))
    return Columns(image, tuple(schema.names), others, parquet.metadata.num_rows)


def _image_column(schema: pa.Schema) -> str | None:
    """A struct with `bytes` as Hugging Face writes it, else a binary column: one with a telling name, or the only one."""
    structs = [f.name for f in schema if pa.types.is_struct(f.type) and _has_bytes(f.type)]
    plain = [f.name for f in schema if _is_bytes(f.type) and f.name != "uri"]
    for name in ("image", *structs):
        if name in structs:
            return f"{name}.bytes"
        if name in plain:
            return name
    telling = [name for name in plain if any(word in name.lower() for word in _NAMES)]
    return telling[0] if telling else plain[0] if len(plain) == 1 else None


def _has_bytes(kind: pa.DataType) -> bool:
    at = kind.get_field_index("bytes")
    return at >= 0 and _is_bytes(kind.field(at).type)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _holds_bytes(kind: pa.DataType) -> bool:
    if _is_bytes(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
