"""Files below a folder in the order in which an object store lists them, whatever reads the folders."""

from __future__ import annotations

import resource
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import NamedTuple, Protocol, TypeAlias

from skinbatch.errors import StoreError
from skinbatch.lookahead import ahead

_THREADS = 6
# Folders that are read in one go at most.
_FOLDERS = 128
# Names that such a go holds at most.
_NAMES = 5_000
# How many of the last folders have waited for a disk or a server, as a share, from which on the
# next are read in threads. Where everything is in memory already, threads would only be in each
# other's way.
_WAITED = 0.25
# macOS only knows what the whole process has used.
_OF_THREAD = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)


class Folder(NamedTuple):
    """names: ascending, those of folders with a slash at their end. odd: those that are no plain files for sure."""

    names: list[str]
    odd: set[str]


_Folders: TypeAlias = Generator[Folder, None, None]


class Scan(Protocol):
    def __call__(self, folder: str, most: int | None = None) -> Folder | None:
        """What is in a folder, whose key is empty or ends in a slash; nothing if there is none. None if it has more than
        `most` names. StoreError if it cannot be read."""


def walk(scan: Scan, prefix: str) -> Iterator[tuple[str, bool]]:
    """Keys of what is no folder, ascending, and whether it is a plain file for sure. scan: called from several threads."""
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
    """Its names, and what is in the folders among them, in that order."""
    return key, iter(folder.names), folder.odd, _below(scan, key, [n for n in folder.names if n[-1] == "/"])


def _below(scan: Scan, above: str, names: Sequence[str]) -> _Folders:
    goes = _Goes(scan, above, names)
    reads = ahead(goes, goes.read, _THREADS, at_once=lambda _: not goes.waits)
    try:
        for batch, found in reads:
            for folder in chain(found, (_whole(scan, above + name) for name in batch[len(found) :])):
                goes.note(folder)
                yield folder
    finally:
        goes.over = True
        reads.close()


class _Goes:
    """Neighbouring folders, as many in one go as those before them suggest.

    waits: reading them is waiting, so it is worth a thread. over: nobody wants the rest.
    """

    def __init__(self, scan: Scan, above: str, names: Sequence[str]) -> None:
        self.waits = self.over = False
        self._scan, self._above, self._names = scan, above, names
        self._many = 1
        self._folders = self._entries = 0
        self._watched = self._waited = 0

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
        """What one of them has been, in their order."""
        self._folders += 1
        self._entries += len(folder.names)
        if self._folders == 2 * _FOLDERS:  # the last ones say more than the first
            self._folders, self._entries = _FOLDERS, self._entries // 2

    def read(self, go: Sequence[str]) -> list[Folder]:
        """The first folders of a go: up to one that has too many names, or that cannot be read, which is found out again
        when it is its turn. None where folders have so many names that each is a go."""
        if self._entries > _NAMES * self._folders:
            return []
        found: list[Folder] = []
        left = _NAMES
        before = _waits()
        for name in go:
            try:
                folder = None if self.over else self._scan(self._above + name, left)
            except StoreError:
                break
            if folder is None:
                break
            found.append(folder)
            left -= len(folder.names)
        if not self.waits:
            self._watch(len(found), _waits() - before)
        return found

    def _watch(self, folders: int, waited: int) -> None:
        self._watched += folders
        self._waited += waited
        if self._watched >= _FOLDERS // 2:
            self.waits = self._waited > _WAITED * self._watched
            self._watched = self._waited = 0


def _waits() -> int:
    """How often this thread has waited for something so far: not for a processor, but also for another Python thread."""
    return resource.getrusage(_OF_THREAD).ru_nvcsw


def _whole(scan: Scan, key: str) -> Folder:
    folder = scan(key)
    assert folder is not None, "nothing is too much"
    return folder
