"""Decide what a listed object is: a photo, a shard, or neither."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from skinbatch.archive.columns import AmbiguousError, ParquetError
from skinbatch.archive.formats import (
    HEAD_BYTES,
    IMAGE_EXTENSIONS,
    SHARD_EXTENSIONS,
    extension,
    image_format,
    is_junk,
    shard_kind,
    skip_name,
)
from skinbatch.archive.globs import Globs
from skinbatch.archive.parquet_file import columns_of
from skinbatch.config import SourceSettings
from skinbatch.errors import ForbiddenError, NotFoundError, UsageError
from skinbatch.lookahead import ahead
from skinbatch.storage.local import LocalStore
from skinbatch.storage.store import ObjectInfo, Store
from skinbatch.types import ImageRef, ShardRef

_THREADS = 16


@dataclass(frozen=True, slots=True)
class Candidate:
    """Hold one object of a source: its name, its store and its entry there."""

    name: str
    store: Store
    info: ObjectInfo

    @property
    def uri(self) -> str:
        return self.store.uri_of(self.info.key)


def classify(
    candidates: Iterable[Candidate], globs: Globs, skipped: Counter[str], settings: SourceSettings
) -> Iterator[ImageRef | ShardRef]:
    """Yield the photos and shards among `candidates` in order; count the others in `skipped`.

    The name decides if it can. Files without an extension, and those that an include pattern names,
    are recognised by their first bytes, and Parquet files by their footer. These are read ahead in
    threads.

    Raises UsageError for a Parquet file with several columns of images if none is named.
    """

    def judge(candidate: Candidate) -> ImageRef | ShardRef | None:
        content_hash = settings.content_hash and isinstance(candidate.store, LocalStore)
        return _judge(candidate, globs, content_hash, settings.image_column)

    def quick(candidate: Candidate) -> bool:
        hashes = settings.content_hash and isinstance(candidate.store, LocalStore)
        return not hashes and not _needs_bytes(candidate.name, globs)

    for candidate, entry in ahead(candidates, judge, _THREADS, at_once=quick):
        if entry is None:
            skipped[skip_label(candidate.name, settings)] += 1
        else:
            yield entry


def _needs_bytes(name: str, globs: Globs) -> bool:
    ending = extension(name)
    if ending in IMAGE_EXTENSIONS or is_junk(name):
        return False
    kind = SHARD_EXTENSIONS.get(ending)
    return kind == "parquet" or (kind is None and (not ending or globs.names_extension(name)))


def skip_label(name: str, settings: SourceSettings) -> str:
    """Return the name under which a listed file without photos is counted."""
    if SHARD_EXTENSIONS.get(extension(name)) != "parquet" or is_junk(name):
        return skip_name(name)
    columns = " or ".join(map(repr, settings.image_column))
    return (
        f"(Parquet without photos in a column {columns})" if columns else "(Parquet without photos)"
    )


def has_photos(store: Store, info: ObjectInfo, image_column: Sequence[str]) -> bool:
    """Return whether a Parquet file belongs to the source.

    One that cannot be read does, and its row gives the reason. Raises UsageError if several columns
    hold images and none is named.
    """
    try:
        return columns_of(store, info, image_column).image is not None
    except AmbiguousError as e:
        raise UsageError(
            f"{store.uri_of(info.key)}: {e}, or leave the file out (--exclude)"
        ) from None
    except (ParquetError, ForbiddenError, NotFoundError):
        return True


def _judge(
    candidate: Candidate, globs: Globs, content_hash: bool, image_column: Sequence[str]
) -> ImageRef | ShardRef | None:
    name, info = candidate.name, candidate.info
    if is_junk(name):
        return None
    ending = extension(name)
    if ending in IMAGE_EXTENSIONS:
        return photo_ref(candidate, content_hash)
    kind = SHARD_EXTENSIONS.get(ending)
    if kind is None:
        if ending and not globs.names_extension(name):
            return None
        head = _head(candidate)
        if image_format(head) is not None:
            return photo_ref(candidate, content_hash)
        kind = shard_kind(head)
    if kind is None or (kind == "parquet" and not has_photos(candidate.store, info, image_column)):
        return None
    selection = globs.within(name, kind)
    if selection is None:
        return None
    return ShardRef(
        name, candidate.uri, kind, info.size, info.version or None, selection, info.modified
    )


def photo_ref(candidate: Candidate, content_hash: bool) -> ImageRef:
    """Return the candidate as a loose photo."""
    info = candidate.info
    version: str | None = info.version or None
    if content_hash:
        # Its row, or its absence, is decided when it is scored.
        with suppress(ForbiddenError, NotFoundError):
            version = hash_of(candidate.store, info.key)
    return ImageRef(candidate.name, candidate.uri, info.size, version, modified=info.modified)


def hash_of(store: Store, key: str) -> str:
    """Return the SHA-256 of an object, in constant memory."""
    with store.stream(key) as stream:
        return hashlib.file_digest(cast(Any, stream), "sha256").hexdigest()


def _head(candidate: Candidate) -> bytes:
    """Return the first bytes of an object; none if it may not be read.

    Such an object is skipped, because nothing shows that it is a photo.
    """
    try:
        return candidate.store.get_range(
            candidate.info.key, 0, min(HEAD_BYTES, candidate.info.size)
        )
    except (ForbiddenError, NotFoundError):
        return b""
