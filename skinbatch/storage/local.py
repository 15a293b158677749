"""Use a folder of a local or mounted file system as a store."""

from __future__ import annotations

import errno
import io
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from skinbatch.errors import (
    ChangedError,
    DiskError,
    ForbiddenError,
    NotFoundError,
    ObjectTooLargeError,
    StoreError,
    UsageError,
)
from skinbatch.storage.links import Links, is_within
from skinbatch.storage.local_files import (
    described,
    make_folder,
    read_all,
    regular,
    sync_folder,
)
from skinbatch.storage.store import TEMPORARY, ObjectInfo
from skinbatch.storage.traffic import TRAFFIC
from skinbatch.storage.walk import Folder, walk

_CHUNK = 1 << 20
_WRITES = 3
# File names need not be UTF-8. Python represents a stray byte as U+DC80..DCFF, which no table can
# store. Keys represent it as the private-use character U+F780..F7FF, which can be stored and
# converted back.
_TO_KEY = {0xDC00 + b: 0xF700 + b for b in range(0x80, 0x100)}
_FROM_KEY = {v: k for k, v in _TO_KEY.items()}


def uri_of(path: str) -> str:
    """Return a path as the text that stands for it in keys and tables."""
    return path.translate(_TO_KEY)


def path_of(uri: str) -> str:
    """Return the path for a text from `uri_of`, whether the path exists or not.

    If a name really contains a private-use character, that name takes precedence over an escaped
    byte. This is decided for each part of the path.
    """
    if not _has_stray(uri) or os.path.lexists(uri):
        return uri
    above, name = os.path.split(uri)
    if above == uri:
        return uri

    path = os.path.join(path_of(above), name)
    if not _has_stray(name) or os.path.lexists(path):
        return path
    return os.path.join(os.path.dirname(path), name.translate(_FROM_KEY))


def _has_stray(key: str) -> bool:
    """Return whether a key may contain an escaped byte that is not UTF-8."""
    return not key.isascii() and any(0xF780 <= ord(c) <= 0xF7FF for c in key)


class LocalStore:
    """Read and write files below `root`.

    By default, a listing holds links to files inside the root, but neither links that leave it nor
    links to folders. A read error of the disk (EIO) is a DiskError, because it concerns only that
    file.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = path_of(os.path.abspath(os.path.expanduser(root)))
        self._above = os.path.join(self._root, "")
        self._above_uri = uri_of(self._above)
        # Folders in which a listing has skipped a `.tmp-*`.
        self._littered: set[str] = set()

    @property
    def uri(self) -> str:
        return uri_of(self._root)

    def uri_of(self, key: str) -> str:
        return self._above_uri + key

    def list(self, prefix: str = "", *, links: Links | None = None) -> Iterator[ObjectInfo]:
        """See Store. links: decides which links are followed, including those to folders."""
        files = links or Links(self._root)
        for key, plain in self._walk(prefix, links):
            status = self._status(key, plain, files)
            if status is not None:
                yield described(key, status)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """See Store. Only folders are read, not their files."""
        links = Links(self._root)
        for key, plain in self._walk(prefix):
            if plain or self._status(key, plain, links) is not None:
                yield key

    def head(self, key: str) -> ObjectInfo:
        with self._errors(key):
            return described(key, regular(os.stat(self._path(key))))

    def get(
        self,
        key: str,
        *,
        version: str | None = None,
        size: int | None = None,
        limit: int | None = None,
    ) -> tuple[bytes, ObjectInfo]:
        with self._errors(key), self._open(key, version, size) as (fd, info):
            if limit is not None and info.size > limit:
                raise ObjectTooLargeError(
                    f"{self.uri_of(key)}: {info.size:,} bytes, over the limit of {limit:,}"
                )
            data = read_all(fd, info.size)
            self._unchanged(fd, info, len(data) == info.size)
            TRAFFIC.read(len(data))
            return data, info

    def get_range(self, key: str, start: int, stop: int, *, version: str | None = None) -> bytes:
        with self._errors(key), self._open(key, version) as (fd, info):
            if not 0 <= start <= stop <= info.size:
                raise StoreError(
                    f"{self.uri_of(key)}: bytes {start}-{stop} were requested, but it has {info.size}"
                )
            os.lseek(fd, start, os.SEEK_SET)
            data = read_all(fd, stop - start)
            self._unchanged(fd, info, len(data) == stop - start)
            TRAFFIC.read(len(data))
            return data

    def stream(self, key: str, *, version: str | None = None, size: int | None = None) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_LocalStream(self, key, version, size), _CHUNK))

    def put(self, key: str, data: bytes) -> ObjectInfo:
        return self._write(key, lambda out: out.write(data))

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        with open(path, "rb") as source:

            def copy(out: BinaryIO) -> None:
                source.seek(0)
                shutil.copyfileobj(source, out, _CHUNK)

            return self._write(key, copy)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with self._errors(key):
                Path(self._path(key)).unlink(missing_ok=True)

    def clear_temporary(self, listed: Iterable[str] = ()) -> int:
        """See Store."""
        apart = {self._path(prefix.rstrip("/")) for prefix in listed}
        real_root = os.path.realpath(self._root)
        littered = [
            folder for folder in self._littered if is_within(os.path.realpath(folder), real_root)
        ]
        self._littered = set()
        count, folders = 0, [(self._root, True), *((folder, False) for folder in littered)]
        while folders:
            folder, all_below = folders.pop()
            try:
                entries = os.scandir(folder)  # os.walk builds lists of everything
            except OSError:
                continue
            with entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path not in apart and (
                            all_below or entry.name.startswith(TEMPORARY)
                        ):
                            folders.append((entry.path, True))
                    elif entry.name.startswith(TEMPORARY):
                        # Another clean-up has removed it, or it belongs to another user.
                        with suppress(FileNotFoundError, PermissionError):
                            os.unlink(entry.path)
                            count += 1
        return count

    def probe_writable(self) -> None:
        key = f"{TEMPORARY}probe-{secrets.token_hex(8)}"
        try:
            self.put(key, b"skinbatch")
            with suppress(NotFoundError):  # another run's clean-up removed it
                self.get(key)
            self.delete([key])
        except (ForbiddenError, NotFoundError) as e:
            raise UsageError(
                f"{self.uri}: cannot be written to: {e}; choose a folder that you may write to"
            ) from None

    def is_folder(self, key: str) -> bool:
        return os.path.isdir(self._path(key))

    def _write(self, key: str, fill: Callable[[BinaryIO], object]) -> ObjectInfo:
        with self._errors(key):
            path = self._path(key)
            folder = os.path.dirname(path)
            temporary = os.path.join(folder, f"{TEMPORARY}{secrets.token_hex(8)}")
            make_folder(folder)
            for left in reversed(range(_WRITES)):
                try:
                    with open(temporary, "xb") as out:
                        fill(out)
                        out.flush()
                        os.fsync(out.fileno())
                        info = described(key, os.fstat(out.fileno()))
                    os.rename(temporary, path)
                    break
                except FileNotFoundError:  # another run's clean-up removed it
                    if not left:
                        raise
                except BaseException:
                    Path(temporary).unlink(missing_ok=True)
                    raise
            sync_folder(folder)
        TRAFFIC.written(info.size)
        return info

    def _path(self, key: str) -> str:
        if key.startswith("/") or (".." in key and ".." in key.split("/")):
            raise ValueError("leads out of the root")
        return path_of(self._above + key) if _has_stray(key) else self._above + key

    def _walk(self, prefix: str, links: Links | None = None) -> Iterator[tuple[str, bool]]:
        """Yield the keys of all but folders in order, and whether each is surely a plain file."""
        return walk(partial(self._scan, links=links), prefix)

    def _scan(
        self, folder: str, most: int | None = None, links: Links | None = None
    ) -> Folder | None:
        """See walk.Scan. links: decides which links to folders are entered; none by default."""
        names: list[str] = []
        odd: set[str] = set()
        try:
            path = self._path(folder)
            with os.scandir(path) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith(TEMPORARY):
                        self._littered.add(path)
                        continue
                    if len(names) == most:
                        return None
                    if not name.isascii():
                        name = name.translate(_TO_KEY)
                    if entry.is_dir(follow_symlinks=False):
                        name += "/"  # counts for the order: "a-b" comes before "a/b", as on S3
                        if links is not None and links.is_storage(path, name):
                            continue
                    elif not entry.is_file(follow_symlinks=False):
                        if links is not None and links.follows_folder(entry.path):
                            name += "/"
                        else:
                            odd.add(name)
                    names.append(name)  # keeping the entries would take five times the memory
        except (FileNotFoundError, NotADirectoryError):
            return Folder([], odd)
        except OSError as e:
            raise self._mapped(folder, e) from e
        if len(names) > 1:
            names.sort()
        return Folder(names, odd)

    def _status(self, key: str, plain: bool, links: Links) -> os.stat_result | None:
        """Return the status of a file; None if it should not be read."""
        try:
            path = self._path(key)
            if not plain and os.path.islink(path) and (reason := links.reason(path)) is not None:
                links.on_skipped(key, reason)
                return None
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as e:
            raise self._mapped(key, e) from e
        return status if stat.S_ISREG(status.st_mode) else None

    @contextmanager
    def _open(
        self, key: str, version: str | None, size: int | None = None
    ) -> Iterator[tuple[int, ObjectInfo]]:
        fd, info = self.open_checked(key, version, size)
        try:
            yield fd, info
        finally:
            os.close(fd)

    def open_checked(
        self, key: str, version: str | None, size: int | None = None
    ) -> tuple[int, ObjectInfo]:
        """Return the descriptor and description of a file.

        Raises ChangedError if the file is not `version`, or does not have `size` bytes.
        """
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        fd = os.open(self._path(key), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            info = described(key, regular(os.fstat(fd)))
            if version is not None and (info.version != version or size not in (None, info.size)):
                raise ChangedError(f"{self.uri_of(key)}: changed since it was listed")
        except BaseException:
            os.close(fd)
            raise
        return fd, info

    def _unchanged(self, fd: int, info: ObjectInfo, whole: bool) -> None:
        now = os.fstat(fd)
        if not whole or (now.st_size, str(now.st_mtime_ns)) != (info.size, info.version):
            raise ChangedError(f"{self.uri_of(info.key)}: changed while it was read")

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as e:
            raise self._mapped(key, e) from e

    def _mapped(self, key: str, e: OSError | ValueError) -> StoreError:
        uri = self.uri_of(key)
        if isinstance(e, ValueError):  # a NUL or `..` in the name: no such file in this store
            return NotFoundError(f"{uri!r}: not a file name")
        reason = e.strerror or type(e).__name__
        if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP):
            return NotFoundError(f"{uri}: {reason}")
        if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return ForbiddenError(f"{uri}: {reason}")
        if e.errno == errno.EIO:
            return DiskError(f"{uri}: {reason}")
        return StoreError(f"{uri}: {reason}")


class _LocalStream(io.RawIOBase):
    """Read a file sequentially; check at its end that it has not changed since it was opened."""

    def __init__(self, store: LocalStore, key: str, version: str | None, size: int | None) -> None:
        self._store, self._fd = store, -1
        with store._errors(key):
            self._fd, self._info = store.open_checked(key, version, size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with self._store._errors(self._info.key):
            got = os.readv(self._fd, [buffer])
            if not got and len(buffer):
                at = os.lseek(self._fd, 0, os.SEEK_CUR)
                self._store._unchanged(self._fd, self._info, at >= self._info.size)
            TRAFFIC.read(got)
            return got

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._fd, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._fd, 0, os.SEEK_CUR)

    def close(self) -> None:
        if not self.closed and self._fd >= 0:
            os.close(self._fd)
        super().close()
