"""Keep compiled networks on this machine's disk, so that the next worker starts sooner."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import time
from pathlib import Path

from skinbatch.models.cache import cache_folder
from skinbatch.storage.store import TEMPORARY

# A file that no worker has read for so long is deleted, and the oldest of too many.
UNUSED_S = 30 * 24 * 3600
MOST_BYTES = 1 << 30
_HASH = hashlib.sha256().digest_size
log = logging.getLogger(__name__)


def kept(key: str) -> bytes | None:
    """Return what was kept under the key, or None.

    A file that is damaged, or that another user could have written, is not used.
    """
    path = _folder() / key
    try:
        if not _is_ours(path.parent) or not _is_ours(path):
            return None
        whole = path.read_bytes()
        os.utime(path)
    except OSError:
        return None

    stored, data = whole[:_HASH], whole[_HASH:]
    return data if hashlib.sha256(data).digest() == stored else None


def keep(key: str, data: bytes) -> None:
    """Keep the data under the key. Nothing is kept if the disk does not allow it."""
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _is_ours(folder):
            return
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(data).digest() + data)
            os.replace(name, folder / key)
        finally:
            Path(name).unlink(missing_ok=True)
        _remove_unused(folder)
    except OSError as e:
        log.info("%s: compiled networks are not kept: %s", folder, e.strerror)


def _folder() -> Path:
    return cache_folder() / "networks"


def _is_ours(path: Path) -> bool:
    """Return whether only this user can write the file or folder. It is run as it is read."""
    if os.name != "posix":
        return True
    facts = path.stat()
    return facts.st_uid == os.getuid() and not facts.st_mode & 0o022


def _remove_unused(folder: Path) -> None:
    files = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another worker may be removing files too
            facts = path.stat()
            files.append((facts.st_mtime, facts.st_size, path))

    oldest, total = time.time() - UNUSED_S, 0
    for last_used, size, path in sorted(files, reverse=True):
        total += size
        if last_used < oldest or total > MOST_BYTES:
            path.unlink(missing_ok=True)
