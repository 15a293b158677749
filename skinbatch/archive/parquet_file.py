"""Read Parquet files with photos in a column, by ranged reads."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, overload

import pyarrow as pa
import pyarrow.parquet as pq

from skinbatch.archive.columns import AmbiguousError, Columns, ParquetError, columns_in
from skinbatch.archive.globs import EXCLUDED, MemberGlobs
from skinbatch.archive.member import BrokenArchiveError, contained
from skinbatch.archive.ranged import RangedFile
from skinbatch.archive.sampling import Sampler, sample_apart, sample_here
from skinbatch.archive.sidecars import Texts, flat_meta
from skinbatch.errors import DiskError, SkinbatchError, memory_is_full
from skinbatch.storage.store import ObjectInfo, Store
from skinbatch.types import Fetched, ImageRef, ShardRef, Status

_MAGIC = b"PAR1"
_FOOTER = 1 << 16
# A file with more rows than this plus its bytes holds no photos: a few kilobytes can declare
# millions of empty rows.
_ROWS = 1000
_BATCH = 8
# A row group that unpacks to more is read one row at a time: a value may be stored once for all
# rows, and each row gets a copy.
_LARGE = 32 << 20
# Number of rows that are read at a time of columns that Arrow leaves coded: each batch has all
# their values, but a row has no copy.
_CODED = 8192
_NO_VALUE = (pa.ArrowException, ValueError, OverflowError, TypeError)


def columns_of(store: Store, info: ObjectInfo, image_column: Sequence[str] = ()) -> Columns:
    """Return the columns of a file from its footer, in one ranged read.

    If values must be examined to find the photos, another process does that.

    Raises AmbiguousError, other ParquetErrors, or StoreError.
    """
    try:
        with contained():
            file = RangedFile(store, info.key, info.size, info.version or None, block=_FOOTER)
            return columns_in(open_parquet(file), file, image_column, sample_apart)
    except AmbiguousError:
        raise
    except BrokenArchiveError as e:
        raise ParquetError(e.status, str(e)) from None


def open_parquet(file: RangedFile) -> pq.ParquetFile:
    """Open a Parquet file. Raises ParquetError or StoreError."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 4))
    if file.read(4) != _MAGIC:
        file.seek(0)
        cut = _MAGIC.startswith(file.read(4))
        raise ParquetError(
            Status.TRUNCATED if cut else Status.CORRUPT,
            "has no Parquet footer" if cut else "not a Parquet file",
        )
    file.seek(0)
    try:
        return pq.ParquetFile(
            pa.PythonFile(file, mode="r"),
            buffer_size=1 << 20,
            pre_buffer=False,
            page_checksum_verification=True,
        )
    except pa.ArrowMemoryError:  # a problem of the worker, not of the file
        raise
    except (pa.ArrowException, OSError) as e:
        raise ParquetError(Status.CORRUPT, f"its Parquet footer cannot be read: {e}") from None


def parquet_rows(
    file: RangedFile,
    shard: ShardRef,
    part: tuple[int, int | None],
    limit: int,
    skipped: Counter[str],
    step: Callable[[], None] = lambda: None,
) -> Iterator[Fetched]:
    """Yield rows with ordinals [start, stop).

    A row is named by its number in the file. Other columns become meta.

    Args:
        part: start and stop. Rows that the shard's globs leave out have no ordinal.
        limit: most bytes of a photo.
        skipped: counts the rows that globs leave out, in the first part.
        step: called when rows are skipped.

    In a damaged row group, the rows from the damage on are `corrupt`, or `unreadable` if the disk
    is damaged. Values of other columns that Python cannot represent become text, or nothing.

    Raises ParquetError or StoreError.
    """
    parquet, columns = _with_photos(file, shard)
    rows = _chosen_rows(shard, columns.rows)
    if part[0] == 0 and len(rows) < columns.rows:
        skipped[EXCLUDED] += columns.rows - len(rows)
    chosen = rows[part[0] : part[1]]
    if not chosen:
        return
    # They need a ParquetFile of their own: all batches of one have the size that was requested
    # last.
    beside = open_parquet(file) if columns.coded else parquet
    texts = Texts()

    first = 0
    for group in range(parquet.metadata.num_row_groups):
        end = first + parquet.metadata.row_group(group).num_rows
        present = range(max(first, chosen[0]), min(end, chosen[-1] + 1))
        if not present:
            first = end
            continue

        status = Status.CORRUPT
        damage = f"row group {group} has fewer rows than its footer records"
        row = present.start
        try:
            coded = _Coded(beside, group, columns.coded)
            batches = _batches(parquet, group, columns)
            for number, fetched in _rows_of_group(
                batches, coded, shard, columns, (first, chosen), limit, step
            ):
                if not texts.fit(fetched.ref.meta):
                    fetched = replace(fetched, ref=replace(fetched.ref, meta={}))
                row = number + 1
                yield fetched
        except DiskError as e:
            status, damage = Status.UNREADABLE, f"row group {group} cannot be read: {e}"
        except SkinbatchError:
            raise
        # Arrow and readers of its values raise anything on hostile bytes.
        except Exception as e:
            if memory_is_full(e):
                raise
            damage = f"row group {group} cannot be read: {e}"

        for lost in range(row, present.stop):
            if lost in chosen:
                yield Fetched(_ref(shard, lost, None, {}), None, status, f"{shard.uri}: {damage}")
        first = end


def _rows_of_group(
    batches: Iterator[pa.RecordBatch],
    coded: _Coded,
    shard: ShardRef,
    columns: Columns,
    place: tuple[int, Sequence[int]],
    limit: int,
    step: Callable[[], None],
) -> Iterator[tuple[int, Fetched]]:
    """Yield the chosen rows of a row group, each with its number in the file.

    place: number of the group's first row, and the numbers of the chosen rows of the file.
    """
    begin, chosen = place
    for batch in batches:
        if begin + len(batch) <= chosen[0]:
            coded.skip(len(batch))
            step()
        else:
            plain = [name for name in columns.others if name not in columns.coded]
            values = {name: _values(_column(batch, name)) for name in plain}
            values |= coded.values(len(batch))
            yield from _rows(batch, values, shard, columns, (begin, chosen), limit)

        begin += len(batch)
        if begin > chosen[-1]:
            return


def _batches(parquet: pq.ParquetFile, group: int, columns: Columns) -> Iterator[pa.RecordBatch]:
    """Yield batches of the columns that Arrow does not leave coded."""
    at_once = 1 if parquet.metadata.row_group(group).total_byte_size > _LARGE else _BATCH
    names = [str(columns.image), *(name for name in columns.others if name not in columns.coded)]
    yield from parquet.iter_batches(at_once, row_groups=[group], columns=names, use_threads=False)


class _Coded:
    """Read columns of a row group that Arrow leaves coded, row by row."""

    def __init__(self, parquet: pq.ParquetFile, group: int, names: Sequence[str]) -> None:
        self._names = names
        self._batches = (
            parquet.iter_batches(_CODED, row_groups=[group], columns=list(names), use_threads=False)
            if names
            else iter(())
        )
        self._rest = pa.RecordBatch.from_pydict({})

    def skip(self, count: int) -> None:
        """Skip rows that are not selected."""
        for _ in self._parts(count):
            pass

    def values(self, count: int) -> dict[str, list[Any]]:
        """Return the values of the next rows, by column."""
        decoded: dict[str, list[Any]] = {name: [] for name in self._names}
        for part in self._parts(count):
            for name, values in decoded.items():
                column = _column(part, name)
                for row in range(len(part)):
                    values += _values(column.slice(row, 1))
        return decoded

    def _parts(self, count: int) -> Iterator[pa.RecordBatch]:
        while self._names and count:
            if not len(self._rest):
                self._rest = next(self._batches, self._rest)
                if not len(self._rest):
                    raise ParquetError(Status.CORRUPT, "columns of different lengths")
            part = self._rest.slice(0, count)
            self._rest = self._rest.slice(len(part))
            count -= len(part)
            yield part


def count_rows(file: RangedFile, shard: ShardRef) -> int:
    """Return how many rows `parquet_rows` yields. Raises ParquetError or StoreError."""
    return len(_chosen_rows(shard, _with_photos(file, shard, sample_apart)[1].rows))


class _Numbers(Sequence[int]):
    """Hold ascending row numbers, of which there may be millions."""

    def __init__(self, numbers: array[int]) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> _Numbers: ...
    def __getitem__(self, place: int | slice) -> int | _Numbers:
        return _Numbers(self._numbers[place]) if isinstance(place, slice) else self._numbers[place]

    def __contains__(self, number: object) -> bool:
        at = bisect_left(self._numbers, cast(int, number))
        return at < len(self._numbers) and self._numbers[at] == number


def _chosen_rows(shard: ShardRef, rows: int) -> Sequence[int]:
    """Return the numbers of the rows that the shard's globs select."""
    globs = MemberGlobs(shard)
    if globs.trivial:
        return range(rows)
    return _Numbers(array("q", (row for row in range(rows) if globs.wants(str(row)))))


def _with_photos(
    file: RangedFile, shard: ShardRef, sample: Sampler = sample_here
) -> tuple[pq.ParquetFile, Columns]:
    parquet = open_parquet(file)
    image_column = shard.selection.image_column
    columns, size = columns_in(parquet, file, image_column, sample), file.seek(0, 2)
    if columns.rows > _ROWS + size:
        raise ParquetError(
            Status.CORRUPT, f"has {columns.rows:,} rows in {size:,} bytes, too few for photos"
        )
    if columns.image is None:
        lacks = (
            f"column {' or '.join(map(repr, image_column))} with photos"
            if image_column
            else "column with photos"
        )
        raise ParquetError(Status.CORRUPT, f"has no {lacks}")
    return parquet, columns


def _rows(
    batch: pa.RecordBatch,
    others: Mapping[str, Sequence[Any]],
    shard: ShardRef,
    columns: Columns,
    place: tuple[int, Sequence[int]],
    limit: int,
) -> Iterator[tuple[int, Fetched]]:
    """Yield the selected rows of a batch, each with its number.

    others: values of the other columns. place: number of the batch's first row, and the selected
    rows.
    """
    begin, chosen = place
    column = columns.top
    photos = _column(batch, column).to_pylist()
    for at, photo in enumerate(photos):
        if begin + at not in chosen:
            continue
        data = photo.get("bytes") if isinstance(photo, dict) else photo
        meta = flat_meta({name: values[at] for name, values in others.items()})
        ref = _ref(shard, begin + at, data, meta)
        if data is None:
            yield (
                begin + at,
                Fetched(ref, None, Status.EMPTY, f"{ref.uri}: no bytes in column {column!r}"),
            )
        elif len(data) > limit:
            error = f"{ref.uri}: {len(data):,} bytes, over max_image_bytes ({limit:,}); raise it in [decode]"
            yield begin + at, Fetched(ref, None, Status.TOO_LARGE, error)
        else:
            yield begin + at, Fetched(ref, data)


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Return the first column with a name: columns with the same name are read together."""
    return batch.column(batch.schema.get_all_field_indices(name)[0])


def _values(column: pa.Array) -> list[Any]:
    """Return values as Python objects; times and decimals become text.

    Text that is not UTF-8 has its bytes escaped. Values that cannot be represented become None.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    try:
        if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
            column = column.cast(pa.string())
        return column.to_pylist()
    except _NO_VALUE:
        # A time zone that this machine lacks.
        if pa.types.is_timestamp(kind) and kind.tz not in (
            None,
            "UTC",
        ):
            return _values(column.cast(pa.timestamp(kind.unit, "UTC")))
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        if any(
            is_text(scalar.type)
            for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
        ):
            data = scalar.as_buffer()
            return None if data is None else data.to_pybytes().decode("utf-8", "backslashreplace")
        return scalar.as_py()
    except _NO_VALUE:
        return None


def _ref(shard: ShardRef, row: int, data: bytes | None, meta: dict[str, str]) -> ImageRef:
    size = None if data is None else len(data)
    return ImageRef(f"{shard.key}/{row}", f"{shard.uri}/{row}", size, shard.version, meta)
