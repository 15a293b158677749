"""List files below a folder in the order of an object store, with any reader of folders."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import NamedTuple, Protocol, TypeAlias

from skinbatch.errors import StoreError
from skinbatch.lookahead import ahead

_THREADS = 6
# Most folders in one batch.
_FOLDERS = 128
# Most names in one batch.
_NAMES = 5_000
# If the last folders took longer than this, the next ones are read in threads. A small folder that is
# in memory takes ten microseconds, and threads would only disturb each other; one that is read from
# a disk takes sixty, one on a server a millisecond or more.
_FOLDER_S = 3e-5
_NAME_S = 1e-6


class Folder(NamedTuple):
    """Hold the content of a folder.

    names: ascending; those of folders end with a slash. odd: names that are surely not plain files.
    """

    names: list[str]
    odd: set[str]


_Folders: TypeAlias = Generator[Folder, None, None]


class Scan(Protocol):
    def __call__(self, folder: str, most: int | None = None) -> Folder | None:
        """Return the content of a folder, or an empty Folder if it does not exist.

        folder: a key that is empty or ends in a slash. Returns None if the folder has more than
        `most` names. Raises StoreError if it cannot be read.
        """


def walk(scan: Scan, prefix: str) -> Iterator[tuple[str, bool]]:
    """Yield the keys of all but folders in order, and whether each is surely a plain file.

    scan: called from several threads.
    """
    above = prefix.rpartition("/")[0]
    top = f"{above}/" if above else ""
    names, odd = _whole(scan, top)
    names = [name for name in names if (top + name).startswith(prefix)]
    opened = [_open(scan, top, Folder(names, odd))]
    try:
        while opened:
            key, left, odd, below = opened[-1]
            for name in left:
                if name[-1] == "/":
                    opened.append(_open(scan, key + name, next(below)))
                    break
                yield key + name, name not in odd
            else:
                opened.pop()[-1].close()
    finally:
        with ExitStack() as innermost_first:
            for *_, below in opened:
                innermost_first.callback(below.close)


def _open(scan: Scan, key: str, folder: Folder) -> tuple[str, Iterator[str], set[str], _Folders]:
    """Return a folder's names, and an iterator over the folders among them, in order."""
    return (
        key,
        iter(folder.names),
        folder.odd,
        _below(scan, key, [n for n in folder.names if n[-1] == "/"]),
    )


def _below(scan: Scan, above: str, names: Sequence[str]) -> _Folders:
    goes = _Goes(scan, above, names)
    reads = ahead(goes, goes.read, _THREADS, at_once=lambda _: not goes.slow)
    try:
        for batch, folders in reads:
            for folder in chain(
                folders, (_whole(scan, above + name) for name in batch[len(folders) :])
            ):
                goes.note(folder)
                yield folder
    finally:
        goes.over = True
        reads.close()


class _Goes:
    """Group neighbouring folders into batches, sized by the folders before them.

    slow: reading a folder takes so long that threads are worth it. over: the rest is not needed.
    """

    def __init__(self, scan: Scan, above: str, names: Sequence[str]) -> None:
        self.slow = self.over = False
        self._scan, self._above, self._names = scan, above, names
        self._many = 1
        self._folders = self._entries = 0
        self._watched, self._excess_s = 0, 0.0

    def __iter__(self) -> Iterator[Sequence[str]]:
        start = 0
        while start < len(self._names):
            go = self._names[start : start + self._many]
            yield go
            start += len(go)
            self._many = min(2 * self._many, _FOLDERS)
            if self._folders:
                self._many = min(self._many, 1 + _NAMES * self._folders // (2 * self._entries + 1))

    def note(self, folder: Folder) -> None:
        """Record the size of one of the folders, in their order."""
        self._folders += 1
        self._entries += len(folder.names)
        if self._folders == 2 * _FOLDERS:  # the last ones predict more than the first
            self._folders, self._entries = _FOLDERS, self._entries // 2

    def read(self, go: Sequence[str]) -> list[Folder]:
        """Return the first folders of a batch, until one has too many names or cannot be read.

        That one is read again in its turn. Returns none if folders have so many names that each is
        a batch of its own.
        """
        if self._entries > _NAMES * self._folders:
            return []
        folders: list[Folder] = []
        left = _NAMES
        start = time.perf_counter()
        for name in go:
            try:
                folder = None if self.over else self._scan(self._above + name, left)
            except StoreError:
                break
            if folder is None:
                break
            folders.append(folder)
            left -= len(folder.names)
        if not self.slow:
            names = _NAMES - left
            expected = _FOLDER_S * len(folders) + _NAME_S * names
            self._watch(len(folders), time.perf_counter() - start - expected)
        return folders

    def _watch(self, folders: int, excess_s: float) -> None:
        self._watched += folders
        self._excess_s += excess_s
        if self._watched >= _FOLDERS // 2:
            self.slow = self._excess_s > 0
            self._watched, self._excess_s = 0, 0.0


def _whole(scan: Scan, key: str) -> Folder:
    folder = scan(key)
    assert folder is not None, "nothing is too much"
    return folder
