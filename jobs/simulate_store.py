"""Keep a destination of millions of small objects in one file.

Two million units leave six million files. In a folder they take 25 GB and hours of waiting for the
disk, and in memory they would be counted as the driver's. In SQLite they take 3 GB on disk and a
few megabytes of cache.
"""

from __future__ import annotations

import io
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from skinbatch.errors import ChangedError, NotFoundError, StoreError
from skinbatch.storage.store import ObjectInfo

# Number of keys in one answer to a listing, as on S3.
_PAGE = 1000
_CACHE_KIB = 16_384


class OneFileStore:
    """Keep objects as rows of an SQLite table, ordered by key; see Store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # The simulation measures the driver, so nothing waits for the disk.
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, size INTEGER, version INTEGER, "
            "data BLOB, file TEXT) WITHOUT ROWID"
        )
        self._versions = 0

    @property
    def uri(self) -> str:
        return str(self._path)

    def uri_of(self, key: str) -> str:
        return f"{self._path}/{key}"

    def _rows(self, query: str, *values: object) -> list[tuple[str, int, int]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        after, end = prefix, prefix + "\U0010ffff"
        how = ">="
        while True:
            rows = self._rows(
                f"SELECT key, size, version FROM objects WHERE key {how} ? AND key < ? "
                f"ORDER BY key LIMIT {_PAGE}",
                after,
                end,
            )
            for key, size, version in rows:
                yield ObjectInfo(key, size, str(version))
            if len(rows) < _PAGE:
                return
            after, how = rows[-1][0], ">"

    def keys(self, prefix: str = "") -> Iterator[str]:
        return (info.key for info in self.list(prefix))

    def head(self, key: str) -> ObjectInfo:
        rows = self._rows("SELECT key, size, version FROM objects WHERE key = ?", key)
        if not rows:
            raise NotFoundError(f"{self.uri_of(key)}: does not exist")
        return ObjectInfo(key, rows[0][1], str(rows[0][2]))

    def get(
        self,
        key: str,
        *,
        version: str | None = None,
        size: int | None = None,
        limit: int | None = None,
    ) -> tuple[bytes, ObjectInfo]:
        info = self.head(key)
        if version not in (None, info.version):
            raise ChangedError(f"{self.uri_of(key)}: has changed")
        with self._lock:
            data, file = self._connection.execute(
                "SELECT data, file FROM objects WHERE key = ?", (key,)
            ).fetchone()
        return Path(file).read_bytes() if file else data, info

    def get_range(self, key: str, start: int, stop: int, *, version: str | None = None) -> bytes:
        data, _ = self.get(key, version=version)
        if stop > len(data):
            raise StoreError(f"{self.uri_of(key)}: has only {len(data)} bytes")
        return data[start:stop]

    def stream(self, key: str, *, version: str | None = None, size: int | None = None) -> BinaryIO:
        return io.BytesIO(self.get(key, version=version)[0])

    def put(self, key: str, data: bytes) -> ObjectInfo:
        return self._put(key, len(data), data, None)

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        """Copy a file, which may not fit into memory, to a place beside the table."""
        copy = self._path.with_name(f"{self._path.name}.{secrets.token_hex(6)}")
        shutil.copyfile(path, copy)
        return self._put(key, path.stat().st_size, b"", str(copy))

    def _put(self, key: str, size: int, data: bytes, file: str | None) -> ObjectInfo:
        with self._lock:
            self._versions += 1
            self._connection.execute(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)",
                (key, size, self._versions, data, file),
            )
            return ObjectInfo(key, size, str(self._versions))

    def delete(self, keys: Iterable[str]) -> None:
        with self._lock:
            rows = [(key,) for key in keys]
            self._connection.executemany("DELETE FROM objects WHERE key = ?", rows)

    def clear_temporary(self, listed: Iterable[str] = ()) -> int:
        return 0

    def probe_writable(self) -> None:
        """Do nothing: the file was made."""

    def close(self) -> None:
        self._connection.close()
