"""A CSV or Parquet file that names photos, for archives too large to list."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Literal, cast

import pyarrow as pa

from skinbatch.archive.columns import ParquetError
from skinbatch.archive.members import flat_meta
from skinbatch.archive.parquet import open_parquet
from skinbatch.archive.ranged import RangedFile
from skinbatch.archive.rows import Row, RowSource, absolute
from skinbatch.config import Config
from skinbatch.errors import UsageError
from skinbatch.redact import unsigned
from skinbatch.storage.base import ObjectInfo, Store
from skinbatch.storage.locate import is_s3

_KNOWN = ("uri", "size", "etag", "version")


class ListingSource(RowSource):
    """Columns `uri`, and where they are there `size` (bytes) and `etag`, or `version` as skinbatch writes it; all others
    pass through as meta. The image_id is the uri as written, but for the query string of a presigned one: a signature is
    another one tomorrow, and photos are read with the run's own credentials. A listing on S3 may name
    s3:// uris only."""

    def __init__(self, store: Store, info: ObjectInfo, form: Literal["csv", "parquet"], config: Config) -> None:
        super().__init__(store, info, config)
        self._form = form

    def rows(self) -> Iterator[Row]:
        records = parquet_records if self._form == "parquet" else csv_records
        found: Iterator[Mapping[str, Any]] = records(self._store, self._info)
        for number, record in enumerate(found, 1):
            yield self._row(record, number)

    def _row(self, record: Mapping[str, Any], number: int) -> Row:
        known = {name: value for key, value in record.items() if (name := _plain(key)) in _KNOWN}
        written = unsigned(str(known.get("uri") or "").strip())
        if not written:
            return Row("", "")
        try:
            uri = absolute(written, self._store.uri)
        except UsageError as e:
            raise UsageError(f"{self.uri}: row {number}: {e}") from None
        if is_s3(self.uri) and not is_s3(uri):
            # Whoever may write to a bucket must not choose which files of the workers' disks are read.
            raise UsageError(f"{self.uri}: row {number}: {uri}: a listing on S3 may name s3:// uris only")
        version = str(known.get("etag") or known.get("version") or "").strip('"') or None
        meta = flat_meta({k: v for k, v in record.items() if _plain(k) not in _KNOWN and v != ""})
        return Row(written, uri, whole_number(known.get("size"), f"{self.uri}: row {number}"), version, meta)


def has_uris(names: Iterable[str]) -> bool:
    return any(_plain(name) == "uri" for name in names)


def is_csv(name: str) -> bool:
    return name.lower().endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz"))


def whole_number(value: Any, where: str) -> int | None:
    """A size. Raises UsageError."""
    if value is None or value == "":
        return None
    try:
        size = int(value)
    except (TypeError, ValueError, OverflowError):
        size = -1
    if not 0 <= size < 2**63:
        raise UsageError(f"{where}: size {str(value)[:40]!r} is not a number of bytes")
    return size


def csv_records(store: Store, info: ObjectInfo, columns: Sequence[str] | None = None) -> Iterator[dict[str, str]]:
    """Rows by column name, streamed, unpacked where packed with gzip. columns: names, where the file has no header."""
    uri = store.uri_of(info.key)
    with store.stream(info.key, version=info.version or None) as stream:
        packed = cast(Any, stream).peek(2).startswith(b"\x1f\x8b")
        raw = cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if packed else stream
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
        try:
            if columns is None:
                header = text.readline()
                delimiter = next((d for d in ",;\t" if d in header), ",")
                columns = next(csv.reader([header], delimiter=delimiter), [])
                if not has_uris(columns):
                    raise UsageError(f"{uri}: has no `uri` column; its columns are {', '.join(columns)}")
            else:
                delimiter = ","
            for fields in csv.reader(text, delimiter=delimiter):
                if fields:
                    yield dict(zip(columns, fields, strict=False))
        except UnicodeDecodeError as e:
            raise UsageError(f"{uri}: is not UTF-8 ({e}); save it as UTF-8") from None
        except (csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as e:
            raise UsageError(f"{uri}: cannot be read as CSV: {e}") from None


def parquet_records(store: Store, info: ObjectInfo) -> Iterator[dict[str, Any]]:
    """Rows by column name, streamed; bytes as text, as older writers mark none of it."""
    uri = store.uri_of(info.key)
    try:
        parquet = open_parquet(RangedFile(store, info.key, info.size, info.version or None))
        for batch in parquet.iter_batches(8192, use_threads=False):
            for record in batch.to_pylist():
                yield {k: v.decode("utf-8", "replace") if isinstance(v, bytes) else v for k, v in record.items()}
    except (ParquetError, pa.ArrowException, OSError) as e:
        raise UsageError(f"{uri}: cannot be read as Parquet: {e}") from None


def _plain(name: str) -> str:
    return name.strip().lower()
