"""Read an S3 Inventory: `manifest.json` and the files that it names."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

from skinbatch.archive.csv_file import csv_records, whole_number
from skinbatch.archive.listed_rows import ListedRow, RowSource
from skinbatch.archive.listing import parquet_records
from skinbatch.errors import NotFoundError, UsageError
from skinbatch.storage.locate import is_s3
from skinbatch.storage.store import ObjectInfo, Store

MANIFEST = "manifest.json"
_MANIFEST_BYTES = 64 << 20


class InventorySource(RowSource):
    """List the newest version of every object that existed when the inventory was made.

    The image_id is the uri.
    """

    kind = "inventory"
    trusted = False

    def rows(self) -> Iterator[ListedRow]:
        manifest = self._manifest()
        form = str(manifest["fileFormat"]).upper()
        if form not in ("CSV", "PARQUET"):
            raise UsageError(
                f"{self.uri}: {form} inventories are not supported; configure the inventory as CSV or Parquet"
            )
        columns = [name.strip() for name in str(manifest["fileSchema"]).split(",")]
        bucket = str(manifest["sourceBucket"])
        for file in manifest["files"]:
            store, info = self._data_file(str(file["key"]), str(manifest["destinationBucket"]))
            where = store.uri_of(info.key)
            records = (
                csv_records(store, info, columns) if form == "CSV" else parquet_records(store, info)
            )
            for number, record in enumerate(records, 1):
                row = _row(
                    {_plain(k): v for k, v in record.items()},
                    bucket,
                    form == "CSV",
                    f"{where}: row {number}",
                )
                if row is not None:
                    yield row

    def _manifest(self) -> dict[str, Any]:
        data, _ = self._store.get(
            self._info.key, version=self._info.version or None, limit=_MANIFEST_BYTES
        )
        try:
            manifest = json.loads(data)
        except ValueError as e:
            raise UsageError(f"{self.uri}: is not JSON: {e}") from None
        fields = ("sourceBucket", "destinationBucket", "fileFormat", "fileSchema", "files")
        missing = [
            name for name in fields if not isinstance(manifest, dict) or name not in manifest
        ]
        if missing:
            raise UsageError(
                f"{self.uri}: is not an S3 Inventory manifest: it has no {', '.join(missing)}"
            )
        return manifest

    def _data_file(self, key: str, destination: str) -> tuple[Store, ObjectInfo]:
        """Return the store and the entry of a data file.

        It is in the inventory's bucket. If the inventory was copied to a disk, the file is beside
        the manifest or in `../data`.
        """
        name = posixpath.basename(key)
        bucket = destination.removeprefix("arn:aws:s3:::").rpartition(":")[2]
        places = [f"s3://{bucket}/{key}"]
        if not is_s3(self.uri):
            folder = posixpath.dirname(self.uri)
            places = [
                f"{posixpath.dirname(folder)}/data/{name}",
                f"{folder}/data/{name}",
                f"{folder}/{name}",
            ]
        for place in places:
            store, at = self._locator.locate(place)
            try:
                return store, store.head(at)
            except NotFoundError:
                continue
        raise UsageError(
            f"{self.uri}: names the data file {key}, which is not at {' or '.join(places)}"
        )


def _row(record: Mapping[str, Any], bucket: str, encoded: bool, where: str) -> ListedRow | None:
    """Return the row of an object; None for delete markers and for older versions."""
    if _is(record.get("isdeletemarker"), True) or _is(record.get("islatest"), False):
        return None
    key = str(record.get("key") or "")
    if not key:
        raise UsageError(f"{where}: has no key; the inventory's schema must have the column Key")
    uri = f"s3://{record.get('bucket') or bucket}/{unquote_plus(key) if encoded else key}"
    etag = str(record.get("etag") or "").strip('"') or None
    return ListedRow(
        uri,
        uri,
        whole_number(record.get("size"), where),
        etag,
        modified=_moment(record.get("lastmodifieddate")),
    )


def _moment(value: Any) -> float | None:
    """Return the time of the last modification from a text or timestamp; None if unknown."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _is(value: Any, expected: bool) -> bool:
    return value is expected or str(value).lower() == str(expected).lower()


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
