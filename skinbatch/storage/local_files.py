"""Read, describe and sync single files and folders of a file system."""

from __future__ import annotations

import errno
import os
import stat

from skinbatch.storage.store import ObjectInfo


def described(key: str, status: os.stat_result) -> ObjectInfo:
    """Return what a listing tells about a file."""
    return ObjectInfo(key, status.st_size, str(status.st_mtime_ns), status.st_mtime)


def regular(status: os.stat_result) -> os.stat_result:
    """Return the status. Raises IsADirectoryError for anything but a plain file."""
    if not stat.S_ISREG(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "not a regular file")
    return status


def read_all(fd: int, size: int) -> bytes:
    """Return up to `size` bytes; fewer only at the end of the file."""
    first = os.read(fd, size)
    if len(first) == size:
        return first
    parts, got = [first], len(first)
    while got < size and (part := os.read(fd, size - got)):
        parts.append(part)
        got += len(part)
    return b"".join(parts)


def make_folder(folder: str) -> None:
    """Create a folder and those above it, each one synced into its parent."""
    if os.path.isdir(folder):
        return

    parent = os.path.dirname(folder)
    make_folder(parent)
    try:
        os.mkdir(folder)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is a file, not a folder") from None
    sync_folder(parent)


def sync_folder(folder: str) -> None:
    """Write the entries of a folder to the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as e:
        if e.errno != errno.EINVAL:  # some mounted file systems cannot sync a folder
            raise
    finally:
        os.close(fd)
