"""From what the user writes to the store that holds it."""

from __future__ import annotations

import threading
from typing import Any

from skinbatch.config import StorageSettings
from skinbatch.errors import UsageError
from skinbatch.redact import is_signed
from skinbatch.storage.base import Store
from skinbatch.storage.local import LocalStore
from skinbatch.storage.s3 import S3Store

_S3 = "s3://"
_FILE = "file://"


def is_s3(uri: str) -> bool:
    return uri.startswith(_S3)


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`. Raises UsageError."""
    bucket, _, key = uri.removeprefix(_S3).partition("/")
    if not bucket:
        raise UsageError(f"{uri}: names no bucket; write s3://bucket/prefix")
    if "@" in bucket or is_signed(uri):
        way_out = "write s3://bucket/prefix, and leave credentials to the environment or to [storage] profile"
        raise UsageError(f"{uri}: carries credentials, which would stand in tables and logs; {way_out}")
    return bucket, key


def local_path(uri: str) -> str:
    """The path in a path or `file://` uri. Raises UsageError for any other scheme."""
    if uri.startswith(_FILE):
        return uri.removeprefix(_FILE)
    scheme, found, _ = uri.partition("://")
    if found and scheme.isalnum():
        raise UsageError(f"{uri}: {scheme}:// is not read; use a local path or s3://bucket/prefix")
    return uri


def open_store(uri: str, settings: StorageSettings, *, anonymous: bool = False) -> Store:
    """The store rooted at a local path or `s3://bucket/prefix`; asks it nothing. Raises UsageError."""
    if is_s3(uri):
        return S3Store(*split_s3(uri), settings, anonymous=anonymous)
    if not uri:
        raise UsageError("an empty path; name a folder or s3://bucket/prefix")
    return LocalStore(local_path(uri))


class Locator:
    """Finds the store and key of any photo's uri; `settings.anonymous` applies. Threads may share it; it pickles.

    It remembers what was read last, in this process: only beside readable objects is a forbidden one a row."""

    def __init__(self, settings: StorageSettings) -> None:
        self.settings = settings
        self._stores: dict[str, Store] = {}
        self._last_read: dict[str, str] = {}
        self._lock = threading.Lock()

    def note_read(self, uri: str) -> None:
        """At least one byte of `uri` was read."""
        self._last_read[_root(uri)] = uri

    def last_read(self, uri: str) -> str | None:
        """What was read last in the bucket of `uri`; of local files, anywhere on this machine."""
        return self._last_read.get(_root(uri))

    def locate(self, uri: str) -> tuple[Store, str]:
        """Store and key of an absolute path or `s3://bucket/key`. Raises UsageError."""
        bucket, key = split_s3(uri) if is_s3(uri) else ("", local_path(uri).lstrip("/"))
        with self._lock:
            if bucket not in self._stores:
                root = f"{_S3}{bucket}" if bucket else "/"
                self._stores[bucket] = open_store(root, self.settings, anonymous=self.settings.anonymous)
            return self._stores[bucket], key

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["settings"])  # type: ignore[misc]


def _root(uri: str) -> str:
    return split_s3(uri)[0] if is_s3(uri) else ""
