"""Take everything that is written and keep nothing, for a sample that must leave no trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from skinbatch.errors import NotFoundError
from skinbatch.storage.store import ObjectInfo
from skinbatch.storage.traffic import TRAFFIC

# Address of this store, for `open_store`.
DISCARD = "discard:"


class DiscardStore:
    """Count what is written and forget it. The store is always empty; see Store."""

    uri = DISCARD

    def uri_of(self, key: str) -> str:
        return f"{DISCARD}{key}"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(())

    def keys(self, prefix: str = "") -> Iterator[str]:
        return iter(())

    def head(self, key: str) -> ObjectInfo:
        raise NotFoundError(f"{self.uri_of(key)}: not kept")

    def get(
        self,
        key: str,
        *,
        version: str | None = None,
        size: int | None = None,
        limit: int | None = None,
    ) -> tuple[bytes, ObjectInfo]:
        raise NotFoundError(f"{self.uri_of(key)}: not kept")

    def get_range(self, key: str, start: int, stop: int, *, version: str | None = None) -> bytes:
        raise NotFoundError(f"{self.uri_of(key)}: not kept")

    def stream(self, key: str, *, version: str | None = None, size: int | None = None) -> BinaryIO:
        raise NotFoundError(f"{self.uri_of(key)}: not kept")

    def put(self, key: str, data: bytes) -> ObjectInfo:
        TRAFFIC.written(len(data))
        return ObjectInfo(key, len(data), "")

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        return self.put(key, path.read_bytes())

    def delete(self, keys: Iterable[str]) -> None:
        """Do nothing: nothing is kept."""

    def clear_temporary(self, listed: Iterable[str] = ()) -> int:
        return 0

    def probe_writable(self) -> None:
        """Do nothing: everything can be written."""
