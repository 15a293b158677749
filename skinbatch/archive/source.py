"""Open a source, whose kind the store and its content decide."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from skinbatch.archive.columns import AmbiguousError, ParquetError
from skinbatch.archive.csv_file import has_uris, is_csv
from skinbatch.archive.folder import FolderSource
from skinbatch.archive.formats import (
    HEAD_BYTES,
    IMAGE_EXTENSIONS,
    SHARD_EXTENSIONS,
    extension,
    image_format,
    shard_kind,
)
from skinbatch.archive.globs import EXCLUDED, Globs
from skinbatch.archive.inventory import MANIFEST, InventorySource
from skinbatch.archive.listing import ListingSource
from skinbatch.archive.parquet_file import columns_of
from skinbatch.archive.sniff import Candidate, photo_ref
from skinbatch.config import Config
from skinbatch.errors import ColumnNeededError, ForbiddenError, NotFoundError, UsageError
from skinbatch.storage.address import check_address
from skinbatch.storage.local import path_of, uri_of
from skinbatch.storage.locate import is_s3, open_store
from skinbatch.storage.store import ObjectInfo, Store
from skinbatch.types import ImageRef, ShardKind, ShardRef


class Source(Protocol):
    """List photos and shards to score.

    uri: as the user would write it. kind: folder, file, listing or inventory. skipped: number of
    files that were left out, by extension or by a reason in brackets; complete after `entries`.
    """

    uri: str
    kind: str
    skipped: Counter[str]

    def entries(self) -> Iterator[ImageRef | ShardRef]:
        """Yield photos and shards as a stream; every call lists again.

        Raises UsageError if the source may not be read or is malformed.
        """


class FileSource:
    """List one shard or one photo, relative to its folder."""

    kind = "file"

    def __init__(
        self, store: Store, info: ObjectInfo, shard: ShardKind | None, config: Config
    ) -> None:
        self.uri = store.uri_of(info.key)
        self.skipped: Counter[str] = Counter()
        self._candidate, self._shard = Candidate(info.key, store, info), shard
        self._content_hash = config.source.content_hash and not is_s3(self.uri)
        self._globs = Globs(config.source)

    def entries(self) -> Iterator[ImageRef | ShardRef]:
        self.skipped.clear()
        name, info = self._candidate.name, self._candidate.info
        selection = (
            None if self._shard is None else self._globs.within(name, self._shard, alone=True)
        )
        if self._shard is not None and selection is not None:
            yield ShardRef(
                name,
                self.uri,
                self._shard,
                info.size,
                info.version or None,
                selection,
                info.modified,
            )
        elif self._shard is None and self._globs.wants(name):
            yield photo_ref(self._candidate, self._content_hash)
        else:
            self.skipped[EXCLUDED] += 1


def open_source(uri: str, config: Config) -> Source:
    """Return the source at a path or `s3://` uri: a folder, prefix, shard, listing or photo.

    Raises UsageError if there is none, or none that may be read, and StoreError if its store does
    not answer.
    """
    check_address(uri)
    root = uri.rstrip("/") if is_s3(uri) else uri_of(os.path.abspath(os.path.expanduser(uri)))
    parent, _, name = root.rpartition("/")
    try:
        if name and not uri.endswith("/") and not (is_s3(uri) and root.count("/") < 3):
            store = _store(parent or "/", config)
            info = _file(store, name)
            if info is not None:
                return _of_file(store, info, config)
        store = _store(root or "/", config)
        if next(iter(store.list()), None) is None and (
            is_s3(uri) or not os.path.isdir(path_of(root))
        ):
            raise UsageError(f"{uri_of(uri)}: does not exist; name a folder, a shard or a listing")
        return FolderSource(store, config.source)
    except ForbiddenError as e:
        raise UsageError(f"{uri}: cannot be read: {e}; check permissions or credentials") from e


def _store(uri: str, config: Config) -> Store:
    return open_store(uri, config.storage, anonymous=config.storage.anonymous)


def _file(store: Store, name: str) -> ObjectInfo | None:
    """Return the entry of an object; None for a prefix or an empty object that marks a folder."""
    try:
        info = store.head(name)
    except NotFoundError:
        return None
    except ForbiddenError:
        if next(iter(store.list(f"{name}/")), None) is not None:
            return None
        raise
    return info if info.size or extension(name) else None


def _of_file(store: Store, info: ObjectInfo, config: Config) -> Source:
    name, uri = info.key, store.uri_of(info.key)
    if name == MANIFEST:
        return InventorySource(store, info, config)
    if is_csv(name):
        return ListingSource(store, info, "csv", config)
    head = store.get_range(info.key, 0, min(HEAD_BYTES, info.size), version=info.version or None)
    if image_format(head) is not None:
        return FileSource(store, info, None, config)
    kind = shard_kind(head) or SHARD_EXTENSIONS.get(extension(name))
    if kind is None and extension(name) not in IMAGE_EXTENSIONS:
        raise UsageError(
            f"{uri}: is not a source; name a folder, a tar, zip or Parquet file, a CSV listing or {MANIFEST}"
        )
    if kind == "parquet":
        try:
            columns = columns_of(store, info, config.source.image_column)
        except AmbiguousError as e:
            raise ColumnNeededError(f"{uri}: {e}") from None
        except ParquetError:
            return FileSource(store, info, kind, config)  # its row gives the reason
        if columns.image is None and has_uris(columns.names):
            return ListingSource(store, info, "parquet", config)
        if columns.image is None and config.source.image_column and columns.candidates:
            named = " or ".join(map(repr, config.source.image_column))
            raise UsageError(
                f"{uri}: has no photos in a column {named}, which [source] image_column names; columns that may hold them: "
                f"{', '.join(columns.candidates)}"
            )
        if columns.image is None:
            names = ", ".join(columns.names)
            raise UsageError(
                f"{uri}: has neither a column with photos nor a `uri` column; its columns are {names}"
            )
    return FileSource(store, info, kind, config)
