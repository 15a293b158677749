"""Many small files, written by several threads, under names that every file system takes."""

from __future__ import annotations

import hashlib
import posixpath
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from skinbatch.archive.formats import has_image_name
from skinbatch.storage.base import TEMPORARY, ObjectInfo, Store

_WRITERS = 16
_WAITING = 256
# Bytes of a file's name without its extension; file systems take 255.
_LONGEST = 180


class Files:
    """What is written to one store, and what has to go again where writing fails. Used by one thread.

    scratch: what is left when all is written, or nothing shall be.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.keys: list[str] = []
        self.scratch = ExitStack()
        self._names: set[str] = set()
        self._pool = ThreadPoolExecutor(_WRITERS)
        self._waiting: deque[Future[ObjectInfo]] = deque()

    def put(self, key: str, data: bytes) -> None:
        """Soon; an error shows here later, or in `close`."""
        self.keys.append(key)
        self._waiting.append(self._pool.submit(self.store.put, key, data))
        while len(self._waiting) > _WAITING:
            self._waiting.popleft().result()

    def close(self) -> None:
        """Returns when everything is written."""
        while self._waiting:
            self._waiting.popleft().result()
        self._pool.shutdown()
        self.scratch.close()

    def discard(self) -> None:
        """Deletes what was written."""
        self._pool.shutdown(cancel_futures=True)
        self.scratch.close()
        self.store.delete(self.keys)

    def key_for(self, photo: str, extension: str) -> str:
        """A key that is like the photo's name, and no other photo's: the folders stay, the extension is replaced; what file
        systems do not take becomes `_`, and of names that they would take for one, the later gets `~2`."""
        stem = posixpath.splitext(photo)[0] if has_image_name(photo) else photo
        parts = [_plain(part) for part in stem.split("/") if part not in ("", ".", "..")] or ["_"]
        wanted, number = "/".join(parts), 1
        free = wanted
        while free.casefold() in self._names:
            number += 1
            free = f"{wanted}~{number}"
        self._names.add(free.casefold())
        return free + extension


def _plain(part: str) -> str:
    plain = "".join(c if c.isprintable() and c not in '\\:*?"<>|' else "_" for c in part)
    plain = f"_{plain}" if plain.startswith(TEMPORARY) else plain
    if len(plain.encode()) > _LONGEST:
        digest = hashlib.sha256(part.encode(errors="surrogatepass")).hexdigest()[:12]
        plain = plain.encode()[:_LONGEST].decode(errors="ignore") + digest
    return plain
