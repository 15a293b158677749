"""One protocol over object stores. Keys are relative to where the store is rooted, with `/` between parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

# What the names of unfinished files begin with; no store lists them.
TEMPORARY = ".tmp-"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object. key: relative to the store's root. size: bytes. version: ETag without quotes, else LastModified;
    locally `mtime_ns` as text. modified: when it was last modified, in seconds since 1970, where the store has said so."""

    key: str
    size: int
    version: str
    modified: float | None = field(default=None, compare=False)


class Store(Protocol):
    """Reads and writes whole objects. Safe to use from several threads; cheap to pickle (connects where it is used).

    Every method raises NotFoundError, ForbiddenError or ChangedError where they apply, and StoreError when the
    network or server still fails after bounded retries. No method ever returns fewer bytes than the object has.
    """

    @property
    def uri(self) -> str:
        """Root as the user would write it: an absolute path or `s3://bucket/prefix`."""

    def uri_of(self, key: str) -> str:
        """Full uri of a key."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key begins with `prefix` (plain text, as on S3), ascending by key. Temporary files are hidden;
        a root that does not exist has none; a folder that may not be read is a ForbiddenError."""

    def keys(self, prefix: str = "") -> Iterator[str]:
        """The keys of `list`, for who wants to know only what exists."""

    def head(self, key: str) -> ObjectInfo: ...

    def get(
        self, key: str, *, version: str | None = None, size: int | None = None, limit: int | None = None
    ) -> tuple[bytes, ObjectInfo]:
        """Whole object and what was read. version: ChangedError if the object is another one, or changes while it
        is read. size: of that version, in bytes; no other number of them is taken for it. limit: raises
        ObjectTooLargeError before reading more than this many bytes."""

    def get_range(self, key: str, start: int, stop: int, *, version: str | None = None) -> bytes:
        """Bytes [start, stop). Asking past the end is a StoreError."""

    def stream(self, key: str, *, version: str | None = None, size: int | None = None) -> BinaryIO:
        """Sequential reader; version and size as of `get`. Resumes after a lost connection by range; ChangedError if the
        object changes meanwhile; StoreError, never a silent end, if it ends before its announced length."""

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Write atomically: readers see nothing or all. Locally: `.tmp-*`, fsync, rename, fsync of the folder."""

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        """`put` of a file of this machine that need not fit in memory; it is left as it is."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete; keys that are not there are fine."""

    def clear_temporary(self, listed: Iterable[str] = ()) -> int:
        """Remove the `.tmp-*` files that writers that died left behind below the root; returns how many. A writer that
        still lives writes again. listed: prefixes of folders that were just listed through this store: of these, only
        those are read again in which such a file was seen. What appears there later waits for the next time."""

    def probe_writable(self) -> None:
        """Raise UsageError, with the way out, unless an object can be written, read back and deleted here."""
