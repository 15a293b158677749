"""Read one photo by its name: a path, an s3:// address, or a member of a shard by either."""

from __future__ import annotations

import posixpath

from skinbatch.archive.formats import SHARD_EXTENSIONS, extension
from skinbatch.archive.shard import read_member
from skinbatch.archive.unit_reader import read_unit
from skinbatch.config import DecodeSettings
from skinbatch.errors import NotFoundError, UsageError
from skinbatch.storage.locate import Locator, absolute, is_s3
from skinbatch.storage.store import ObjectInfo
from skinbatch.types import Fetched, ImageRef, ShardRef, WorkUnit


def read_named(name: str, locator: Locator, settings: DecodeSettings) -> Fetched:
    """Return the bytes of one photo, or a status with the reason why there are none.

    Args:
        name: A local path or `s3://bucket/key`; or either of a shard, followed by `/member`, as in
            the column `uri`.

    Raises:
        UsageError: If nothing has that name.
        StoreError: If the store does not answer, or does not allow the photo to be read.

    Example:
        >>> from skinbatch.config import StorageSettings
        >>> locator = Locator(StorageSettings())
        >>> read_named("photos/visit-1/a.jpg", locator, DecodeSettings()).status.value
        'ok'
    """
    uri = absolute(name)
    if _head(uri, locator) is not None:
        unit = WorkUnit("one", images=(ImageRef(name, uri),))
        fetched = next(iter(read_unit(unit, locator, settings, threads=1)), None)
    else:
        shard = _shard_of(uri, locator)
        fetched = read_member(shard, uri, locator, settings) if shard else None
    if fetched is None:
        raise UsageError(f"{name}: no such photo")
    return fetched


def _shard_of(uri: str, locator: Locator) -> ShardRef | None:
    """Return the shard that a name begins with; None if there is none."""
    above = posixpath.dirname(uri)
    while above.strip("/") and above != "s3:/":
        kind = SHARD_EXTENSIONS.get(extension(above))
        info = _head(above, locator) if kind else None
        if kind and info:
            return ShardRef(above, above, kind, info.size, None)
        above = posixpath.dirname(above)
    return None


def _head(uri: str, locator: Locator) -> ObjectInfo | None:
    if is_s3(uri) and not uri.removeprefix("s3://").partition("/")[2]:
        return None
    store, key = locator.locate(uri)
    try:
        return store.head(key)
    except NotFoundError:
        return None
