"""Read a CSV or Parquet file that names photos, for archives that are too large to list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pyarrow as pa

from skinbatch.archive.columns import ParquetError
from skinbatch.archive.csv_file import (
    KNOWN,
    check_known,
    csv_records,
    is_missing,
    plain,
    version_text,
    whole_number,
)
from skinbatch.archive.listed_rows import ListedRow, RowSource, absolute
from skinbatch.archive.parquet_file import open_parquet
from skinbatch.archive.ranged import RangedFile
from skinbatch.archive.sidecars import flat_meta
from skinbatch.config import Config
from skinbatch.errors import UsageError
from skinbatch.redact import unsigned
from skinbatch.storage.locate import is_s3
from skinbatch.storage.store import ObjectInfo, Store


class ListingSource(RowSource):
    """List the photos that a file names.

    Columns: `uri`, and optionally `size` (bytes) and `etag`, or `version` as skinbatch writes it.
    All other columns pass through as meta. The image_id is the uri as written, without the query
    string of a presigned one: signatures change, and photos are read with the run's own
    credentials. A listing on S3 may name s3:// uris only.
    """

    def __init__(
        self, store: Store, info: ObjectInfo, form: Literal["csv", "parquet"], config: Config
    ) -> None:
        super().__init__(store, info, config)
        self._form = form

    def rows(self) -> Iterator[ListedRow]:
        records = parquet_records if self._form == "parquet" else csv_records
        each_record: Iterator[Mapping[str, Any]] = records(self._store, self._info)
        for number, record in enumerate(each_record, 1):
            yield self._row(record, number)

    def _row(self, record: Mapping[str, Any], number: int) -> ListedRow:
        known = {name: value for key, value in record.items() if (name := plain(key)) in KNOWN}
        if is_missing(known.get("uri")):
            return ListedRow("", "")
        written = unsigned(str(known["uri"]).strip())
        try:
            uri = absolute(written, self._store.uri)
        except UsageError as e:
            raise UsageError(f"{self.uri}: row {number}: {e}") from None
        if is_s3(self.uri) and not is_s3(uri):
            # Somebody who may write to a bucket must not choose files on the workers' disks.
            raise UsageError(
                f"{self.uri}: row {number}: {uri}: a listing on S3 may name s3:// uris only"
            )
        version = version_text(known.get("etag")) or version_text(known.get("version"))
        meta = flat_meta({k: v for k, v in record.items() if plain(k) not in KNOWN and v != ""})
        return ListedRow(
            written,
            uri,
            whole_number(known.get("size"), f"{self.uri}: row {number}"),
            version,
            meta,
        )


def parquet_records(store: Store, info: ObjectInfo) -> Iterator[dict[str, Any]]:
    """Yield rows by column name as a stream. Bytes become text, which older writers do not mark."""
    uri = store.uri_of(info.key)
    try:
        parquet = open_parquet(RangedFile(store, info.key, info.size, info.version or None))
        check_known(uri, parquet.schema_arrow.names)
        for batch in parquet.iter_batches(8192, use_threads=False):
            for record in batch.to_pylist():
                yield {
                    k: v.decode("utf-8", "replace") if isinstance(v, bytes) else v
                    for k, v in record.items()
                }
    except (ParquetError, pa.ArrowException, OSError) as e:
        raise UsageError(f"{uri}: cannot be read as Parquet: {e}") from None
