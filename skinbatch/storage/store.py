"""Define the protocol of object stores.

Keys are relative to the root of the store, with `/` between their parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

# The prefix of unfinished files, which no store lists.
TEMPORARY = ".tmp-"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Describe one object.

    key: relative to the store's root. size: bytes. version: the ETag without quotes, or
    LastModified if there is none; locally `mtime_ns` as text. modified: time of the last
    modification in seconds since 1970, if the store gives it.
    """

    key: str
    size: int
    version: str
    modified: float | None = field(default=None, compare=False)


class Store(Protocol):
    """Read and write whole objects.

    Several threads may use a store. It is cheap to pickle, and connects where it is used.

    Every method raises NotFoundError, ForbiddenError or ChangedError where they apply, and
    StoreError if the network or the server still fails after a limited number of retries. No method
    ever returns fewer bytes than the object has.
    """

    @property
    def uri(self) -> str:
        """Return the root as the user would write it: an absolute path or `s3://bucket/prefix`."""

    def uri_of(self, key: str) -> str:
        """Return the full uri of a key."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, in ascending order.

        The prefix is plain text, as on S3. Temporary files are hidden. A root that does not exist
        has no objects. Raises ForbiddenError for a folder that may not be read.
        """

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys of `list`, for callers that need nothing else."""

    def head(self, key: str) -> ObjectInfo: ...

    def get(
        self,
        key: str,
        *,
        version: str | None = None,
        size: int | None = None,
        limit: int | None = None,
    ) -> tuple[bytes, ObjectInfo]:
        """Return a whole object and its description.

        Args:
            version: raises ChangedError if the object has another version, or changes while it is
                read.
            size: of that version, in bytes. An answer with another length is not accepted.
            limit: raises ObjectTooLargeError before more than this many bytes are read.
        """

    def get_range(self, key: str, start: int, stop: int, *, version: str | None = None) -> bytes:
        """Return bytes [start, stop). Raises StoreError for a range beyond the end."""

    def stream(self, key: str, *, version: str | None = None, size: int | None = None) -> BinaryIO:
        """Return a sequential reader; version and size as in `get`.

        After a lost connection it resumes by range. It raises ChangedError if the object changes
        meanwhile, and StoreError if the object ends before its announced length.
        """

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Write an object atomically: readers see nothing or all of it.

        Locally: write `.tmp-*`, fsync, rename, fsync the folder.
        """

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        """Write a local file as `put` does; it may be larger than memory and is left as it is."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; keys that do not exist are ignored."""

    def clear_temporary(self, listed: Iterable[str] = ()) -> int:
        """Remove the `.tmp-*` files of dead writers below the root, and return their number.

        A writer that is still alive writes again.

        Args:
            listed: prefixes of folders that were just listed through this store. Of these, only the
                folders in which such a file was seen are read again. Later files wait for the next
                time.
        """

    def probe_writable(self) -> None:
        """Raise UsageError unless an object can be written, read and deleted here."""
