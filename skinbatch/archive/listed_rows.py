"""List photos from rows that name them."""

from __future__ import annotations

import posixpath
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from skinbatch.archive.formats import (
    HEAD_BYTES,
    IMAGE_EXTENSIONS,
    SHARD_EXTENSIONS,
    extension,
    image_format,
    is_junk,
    is_resource_fork,
)
from skinbatch.archive.globs import EXCLUDED, Globs, opens
from skinbatch.archive.seen import SeenNames
from skinbatch.archive.sniff import has_photos, hash_of, skip_label
from skinbatch.config import Config
from skinbatch.errors import ForbiddenError, NotFoundError, UsageError
from skinbatch.lookahead import ahead
from skinbatch.storage.locate import Locator, is_s3, local_path, split_s3
from skinbatch.storage.store import ObjectInfo, Store
from skinbatch.types import ImageRef, ShardRef

_THREADS = 16
DUPLICATE = "(duplicate)"
NO_URI = "(no uri)"


@dataclass(frozen=True, slots=True)
class ListedRow:
    """Hold one row of a listing.

    written: its uri as written. uri: the same uri, absolute. modified: as in ImageRef.
    """

    written: str
    uri: str
    size: int | None = None
    version: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    modified: float | None = None


class RowSource(ABC):
    """List a source whose photos are named by rows. If a uri occurs twice, its first row counts.

    trusted: files without an extension count as photos, because somebody listed them as such. If
    False, their content decides.
    """

    kind = "listing"
    trusted = True

    def __init__(self, store: Store, info: ObjectInfo, config: Config) -> None:
        self.uri = store.uri_of(info.key)
        self.skipped: Counter[str] = Counter()
        self._store, self._info, self._settings = store, info, config.source
        self._locator = Locator(config.storage)
        self._globs = Globs(config.source)

    @abstractmethod
    def rows(self) -> Iterator[ListedRow]:
        """Yield all rows, as a stream. Raises UsageError if the listing is malformed."""

    def entries(self) -> Iterator[ImageRef | ShardRef]:
        self.skipped.clear()
        try:
            for row, entry in ahead(self._listed(), self._judge, _THREADS, at_once=self._is_quick):
                if entry is None:
                    self.skipped[skip_label(row.written, self._settings)] += 1
                else:
                    yield entry
        except ForbiddenError as e:
            raise UsageError(
                f"{self.uri}: cannot be read: {e}; check permissions or credentials"
            ) from e

    def _listed(self) -> Iterator[ListedRow]:
        seen = SeenNames()
        for row in self.rows():
            if not row.uri:
                self.skipped[NO_URI] += 1
            elif not self._globs.wants(row.written) and not opens(self._globs, row.written):
                self.skipped[EXCLUDED] += 1
            elif not seen.add(row.uri):
                self.skipped[DUPLICATE] += 1
            else:
                yield row

    def _is_quick(self, row: ListedRow) -> bool:
        ending = extension(row.uri)
        if ending in IMAGE_EXTENSIONS or (not ending and self.trusted):
            return not self._asks_for(row)
        if ending in SHARD_EXTENSIONS:
            return SHARD_EXTENSIONS[ending] != "parquet" and row.size is not None
        return bool(ending)

    def _asks_for(self, row: ListedRow) -> bool:
        hashes = self._settings.content_hash and not is_s3(row.uri)
        return hashes or (self._settings.head and row.size is None and row.version is None)

    def _judge(self, row: ListedRow) -> ImageRef | ShardRef | None:
        ending = extension(row.uri)
        # A listed photo is intended, wherever it is.
        junk = is_resource_fork(row.uri) if self.trusted else is_junk(row.uri)
        if junk or row.uri.endswith("/"):
            return None
        if ending in IMAGE_EXTENSIONS or (
            not ending and (self.trusted or self._begins_as_photo(row))
        ):
            return self._photo(row)
        kind = SHARD_EXTENSIONS.get(ending)
        if kind is None:
            return None
        store, info = self._located(row)
        if info is None:
            return None
        if kind == "parquet" and not has_photos(store, info, self._settings.image_column):
            return None
        selection = self._globs.within(row.written, kind)
        if selection is None:
            return None
        return ShardRef(
            row.written, row.uri, kind, info.size, info.version or None, selection, info.modified
        )

    def _photo(self, row: ListedRow) -> ImageRef:
        ref = ImageRef(row.written, row.uri, row.size, row.version, row.meta, row.modified)
        if not self._asks_for(row):
            return ref
        store, key = self._locator.locate(row.uri)
        try:
            info = store.head(key)
            if self._settings.content_hash and not is_s3(row.uri):
                info = replace(info, version=hash_of(store, key))
        except (NotFoundError, ForbiddenError):
            return ref  # scoring finds it gone, or gives it a row
        return replace(ref, size=info.size, version=info.version or None, modified=info.modified)

    def _located(self, row: ListedRow) -> tuple[Store, ObjectInfo | None]:
        store, key = self._locator.locate(row.uri)
        if row.size is not None:
            return store, ObjectInfo(key, row.size, row.version or "", row.modified)
        try:
            return store, store.head(key)
        except NotFoundError:
            return store, None
        except ForbiddenError:
            return store, ObjectInfo(key, 0, "")  # scoring gives it a row

    def _begins_as_photo(self, row: ListedRow) -> bool:
        store, key = self._locator.locate(row.uri)
        try:
            size = store.head(key).size  # the row may be older than the object
            return image_format(store.get_range(key, 0, min(HEAD_BYTES, size))) is not None
        except (NotFoundError, ForbiddenError):
            return False


def absolute(written: str, folder: str) -> str:
    """Return a uri of a listing as an absolute one. Raises UsageError.

    folder: of the listing, to which its relative uris refer.
    """
    if is_s3(written):
        return written
    path = local_path(written)
    if path.startswith("/"):
        return path
    joined = f"{folder.rstrip('/')}/{path}"
    if not is_s3(joined):
        return posixpath.normpath(joined)
    bucket, key = split_s3(joined)
    return f"s3://{bucket}/{posixpath.normpath(key)}"
