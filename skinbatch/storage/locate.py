"""Find the store and the key for an address that a user writes."""

from __future__ import annotations

import os
import threading
from typing import Any
from urllib.parse import unquote

from skinbatch.config import StorageSettings
from skinbatch.errors import UsageError
from skinbatch.redact import is_signed
from skinbatch.storage.address import check_address, check_local
from skinbatch.storage.discard import DISCARD, DiscardStore
from skinbatch.storage.local import LocalStore, path_of, uri_of
from skinbatch.storage.s3 import S3Store
from skinbatch.storage.store import Store

_S3 = "s3://"
_FILE = "file://"


def is_s3(uri: str) -> bool:
    return uri.startswith(_S3)


def split_s3(uri: str) -> tuple[str, str]:
    """Return bucket and key of `s3://bucket/key`. Raises UsageError."""
    bucket, _, key = uri.removeprefix(_S3).partition("/")
    if not bucket:
        raise UsageError(f"{uri}: names no bucket; write s3://bucket/prefix")
    if "@" in bucket or is_signed(uri):
        way_out = "write s3://bucket/prefix, and leave credentials to the environment or to [storage] profile"
        raise UsageError(
            f"{uri}: contains credentials, which would appear in tables and logs; {way_out}"
        )
    return bucket, key


def local_path(uri: str) -> str:
    """Return the path in a path or `file://` uri. Raises UsageError for other schemes."""
    if uri.startswith(_FILE):
        return unquote(uri.removeprefix(_FILE).removeprefix("localhost"))
    check_local(uri)
    return uri


def absolute(uri: str) -> str:
    """Return a source or destination as tables and records name it.

    A local path becomes absolute, with links resolved, and with bytes that are not UTF-8 escaped. A
    link to a file keeps its own name. An s3:// address loses the slash at its end.

    Raises:
        UsageError: the address holds credentials, or is neither of the two.
    """
    check_address(uri)
    if is_s3(uri):
        split_s3(uri)
        return uri.rstrip("/")
    path = path_of(os.path.abspath(os.path.expanduser(uri)))
    if os.path.isfile(path):
        folder, name = os.path.split(path)
        return uri_of(os.path.join(os.path.realpath(folder), name))
    return uri_of(os.path.realpath(path))


def open_store(uri: str, settings: StorageSettings, *, anonymous: bool = False) -> Store:
    """Return the store at a local path or `s3://bucket/prefix` without contacting it.

    Raises UsageError.
    """
    if uri == DISCARD:
        return DiscardStore()
    check_address(uri)
    if is_s3(uri):
        return S3Store(*split_s3(uri), settings, anonymous=anonymous)
    return LocalStore(uri)


class Locator:
    """Find the store and key of any photo's uri; `settings.anonymous` applies.

    Threads may share a locator, and it can be pickled. It remembers the object that this process
    read last: a forbidden object becomes a row only if other objects can be read.
    """

    def __init__(self, settings: StorageSettings) -> None:
        self.settings = settings
        self._stores: dict[str, Store] = {}
        self._last_read: dict[str, str] = {}
        self._lock = threading.Lock()

    def note_read(self, uri: str) -> None:
        """Record that at least one byte of `uri` was read."""
        self._last_read[_root(uri)] = uri

    def last_read(self, uri: str) -> str | None:
        """Return the uri that was read last in the bucket of `uri`, or on this machine."""
        return self._last_read.get(_root(uri))

    def locate(self, uri: str) -> tuple[Store, str]:
        """Return store and key of an absolute path or `s3://bucket/key`. Raises UsageError."""
        bucket, key = split_s3(uri) if is_s3(uri) else ("", local_path(uri).lstrip("/"))
        with self._lock:
            if bucket not in self._stores:
                root = f"{_S3}{bucket}" if bucket else "/"
                self._stores[bucket] = open_store(
                    root, self.settings, anonymous=self.settings.anonymous
                )
            return self._stores[bucket], key

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["settings"])  # type: ignore[misc]


def _root(uri: str) -> str:
    return split_s3(uri)[0] if is_s3(uri) else ""
