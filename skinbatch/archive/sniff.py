"""What a listed object is: a photo, an archive file, or neither."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from skinbatch.archive.formats import (
    HEAD_BYTES,
    IMAGE_EXTENSIONS,
    SHARD_EXTENSIONS,
    extension,
    image_format,
    is_resource_fork,
    shard_kind,
    skip_name,
)
from skinbatch.archive.globs import Globs
from skinbatch.archive.parquet import ParquetError, columns_of
from skinbatch.errors import ForbiddenError, NotFoundError
from skinbatch.lookahead import ahead
from skinbatch.storage.base import ObjectInfo, Store
from skinbatch.types import ImageRef, ShardRef

_THREADS = 16


@dataclass(frozen=True, slots=True)
class Candidate:
    """One object of a source: its name there, where it is, and what the store said of it."""

    name: str
    store: Store
    info: ObjectInfo

    @property
    def uri(self) -> str:
        return self.store.uri_of(self.info.key)


def classify(
    candidates: Iterable[Candidate], globs: Globs, skipped: Counter[str], *, content_hash: bool
) -> Iterator[ImageRef | ShardRef]:
    """Photos and archive files among `candidates`, in their order; the others are counted in `skipped`.

    Names decide where they can. Files without an extension and those that an include pattern asks for are told by their
    first bytes, Parquet files by their footer; those are read ahead in threads. content_hash: the version of a photo is
    the SHA-256 of its bytes.
    """

    def judge(candidate: Candidate) -> ImageRef | ShardRef | None:
        return _judge(candidate, globs, content_hash)

    def quick(candidate: Candidate) -> bool:
        return not content_hash and not _needs_bytes(candidate.name, globs)

    for candidate, entry in ahead(candidates, judge, _THREADS, at_once=quick):
        if entry is None:
            skipped[skip_name(candidate.name)] += 1
        else:
            yield entry


def _needs_bytes(name: str, globs: Globs) -> bool:
    ending = extension(name)
    if ending in IMAGE_EXTENSIONS or is_resource_fork(name):
        return False
    kind = SHARD_EXTENSIONS.get(ending)
    return kind == "parquet" or (kind is None and (not ending or globs.names_extension(name)))


def _judge(candidate: Candidate, globs: Globs, content_hash: bool) -> ImageRef | ShardRef | None:
    name, info = candidate.name, candidate.info
    if is_resource_fork(name):
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
    if kind == "parquet" and not _has_photos(candidate):
        return None
    return None if kind is None else ShardRef(name, candidate.uri, kind, info.size, info.version or None)


def photo_ref(candidate: Candidate, content_hash: bool) -> ImageRef:
    """The candidate as a loose photo."""
    info = candidate.info
    version: str | None = info.version or None
    if content_hash:
        with suppress(ForbiddenError, NotFoundError):  # its row, or its absence, is decided when it is scored
            version = hash_of(candidate.store, info.key)
    return ImageRef(candidate.name, candidate.uri, info.size, version)


def hash_of(store: Store, key: str) -> str:
    """SHA-256 of an object, in constant memory."""
    with store.stream(key) as stream:
        return hashlib.file_digest(cast(Any, stream), "sha256").hexdigest()


def _head(candidate: Candidate) -> bytes:
    """First bytes; none where the object may not be read, so that it is skipped: nothing says that it is a photo."""
    try:
        return candidate.store.get_range(candidate.info.key, 0, min(HEAD_BYTES, candidate.info.size))
    except (ForbiddenError, NotFoundError):
        return b""


def _has_photos(candidate: Candidate) -> bool:
    """A file whose columns cannot be read is taken along: its row says what is wrong with it."""
    try:
        return columns_of(candidate.store, candidate.info).image is not None
    except (ParquetError, ForbiddenError, NotFoundError):
        return True
