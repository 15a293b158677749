"""Decide whether a failed read concerns one object, or means that nothing can be read."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from itertools import islice

from skinbatch.archive.formats import IMAGE_EXTENSIONS, SHARD_EXTENSIONS, extension
from skinbatch.errors import ForbiddenError, NotFoundError, StoreError
from skinbatch.storage.local import LocalStore
from skinbatch.storage.locate import Locator, is_s3
from skinbatch.storage.store import Store

_LISTED = 1000
_ASKED = 20


def others_readable(uri: str, locator: Locator, *, beside: bool = True) -> bool:
    """Return whether something else in the bucket of `uri`, or on this machine, can be read now.

    This tries the object that was read last. If that fails and `beside` is true, it tries the first
    20 photos and shards in the same folder. Raises StoreError.
    """
    store, key = locator.locate(uri)
    last = locator.last_read(uri)
    if last is not None and last != uri and _reads(store, locator.locate(last)[1]):
        return True
    return beside and any(_reads(store, other) for other in _beside(store, key))


def check_mounted(uris: Sequence[str], locator: Locator) -> None:
    """Raise StoreError if the folder that local files share is gone or empty.

    uris: files of which some or all are gone. An empty folder is what remains where a disk was
    mounted.
    """
    local = [uri for uri in uris if not is_s3(uri)]
    if not local:
        return
    folder = posixpath.commonpath([posixpath.dirname(uri) for uri in local])
    store, key = locator.locate(folder)
    if not isinstance(store, LocalStore) or not key:
        return
    try:
        gone = not store.is_folder(key) or (
            len(local) > 1 and next(store.list(f"{key}/"), None) is None
        )
    except ForbiddenError:
        return
    if gone:
        raise StoreError(
            f"{folder} is gone; if it was unmounted, mount it and run the same command again"
        )


def _beside(store: Store, key: str) -> Iterator[str]:
    folder, slash, _ = key.rpartition("/")
    try:
        listed = [
            info
            for info in islice(store.list(folder + slash), _LISTED)
            if info.size and info.key != key
        ]
    except (ForbiddenError, NotFoundError):
        return
    known = (info.key for info in listed if _is_known(extension(info.key)))
    yield from islice(known, _ASKED)


def _is_known(ending: str) -> bool:
    return not ending or ending in IMAGE_EXTENSIONS or ending in SHARD_EXTENSIONS


def _reads(store: Store, key: str) -> bool:
    try:
        store.get_range(key, 0, 1)
    except (ForbiddenError, NotFoundError):
        return False
    return True
