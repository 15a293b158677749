"""Write many small files in several threads, under names that every file system accepts."""

from __future__ import annotations

import hashlib
import posixpath
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from skinbatch.archive.formats import has_image_name
from skinbatch.storage.store import TEMPORARY, ObjectInfo, Store

_WRITERS = 16
_WAITING = 256
# Bytes of a file's name without its extension. File systems allow 255.
_LONGEST = 180


class Files:
    """Write files to one store, and delete them if writing fails. Used by one thread.

    scratch: temporary things that are removed at the end.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.keys: list[str] = []
        self.scratch = ExitStack()
        self._names: set[str] = set()
        self._pool = ThreadPoolExecutor(_WRITERS)
        self._waiting: deque[Future[ObjectInfo]] = deque()

    def put(self, key: str, data: bytes) -> None:
        """Write soon. An error is raised by a later call, or by `close`."""
        self.keys.append(key)
        self._waiting.append(self._pool.submit(self.store.put, key, data))
        while len(self._waiting) > _WAITING:
            self._waiting.popleft().result()

    def close(self) -> None:
        """Return when everything is written."""
        while self._waiting:
            self._waiting.popleft().result()
        self._pool.shutdown()
        self.scratch.close()

    def discard(self) -> None:
        """Delete everything that was written."""
        self._pool.shutdown(cancel_futures=True)
        self.scratch.close()
        self.store.delete(self.keys)

    def key_for(self, photo: str, extension: str) -> str:
        """Return a key that is like the photo's name, and differs from every other photo's.

        The folders stay and the extension is replaced. Characters that file systems do not accept
        become `_`. Of names that file systems would confuse, the later one gets `~2`.
        """
        stem = posixpath.splitext(photo)[0] if has_image_name(photo) else photo
        parts = [_plain(part) for part in stem.split("/") if part not in ("", ".", "..")] or ["_"]
        plain_key, number = "/".join(parts), 1
        free = plain_key
        while free.casefold() in self._names:
            number += 1
            free = f"{plain_key}~{number}"
        self._names.add(free.casefold())
        return free + extension


def _plain(part: str) -> str:
    plain = "".join(c if c.isprintable() and c not in '\\:*?"<>|' else "_" for c in part)
    plain = f"_{plain}" if plain.startswith(TEMPORARY) else plain
    if len(plain.encode()) > _LONGEST:
        digest = hashlib.sha256(part.encode(errors="surrogatepass")).hexdigest()[:12]
        plain = plain.encode()[:_LONGEST].decode(errors="ignore") + digest
    return plain
