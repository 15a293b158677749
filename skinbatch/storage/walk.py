"""Files below a folder in the order in which an object store lists them, whatever reads the folders."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from skinbatch.errors import StoreError
from skinbatch.lookahead import ahead

_THREADS = 6
_FOLDERS = 128
"""Folders that are read in one go; fewer than that in one folder are read as they come."""
_NAMES = 5_000
"""Names that such a go holds at most."""
_WAITED = 0.4
"""Share of their time that the last goes have waited for a disk or a server, from which on the next are read in threads.
Where everything is in memory already, threads would only be in each other's way."""
_FADES = 0.9
"""What a go counts for beside the one after it."""


class Folder(NamedTuple):
    """names: ascending, those of folders with a slash at their end. odd: those that are no plain files for sure."""

    names: list[str]
    odd: set[str]


class Scan(Protocol):
    def __call__(self, folder: str, most: int | None = None) -> Folder | None:
        """What is in a folder, whose key is empty or ends in a slash; nothing if there is none. None if it has more than
        `most` names. StoreError if it cannot be read."""


def walk(scan: Scan, prefix: str) -> Iterator[tuple[str, bool]]:
    """Keys of what is no folder, ascending, and whether it is a plain file for sure. scan: called from several threads."""
    above = prefix.rpartition("/")[0]
    top = f"{above}/" if above else ""
    names, odd = _whole(scan, top)
    opened = [_open(scan, top, Folder([n for n in names if (top + n).startswith(prefix)], odd))]
    while opened:
        key, left, odd, below = opened[-1]
        for name in left:
            if name[-1] == "/":
                opened.append(_open(scan, key + name, next(below)))
                break
            yield key + name, name not in odd
        else:
            opened.pop()


def _open(scan: Scan, key: str, folder: Folder) -> tuple[str, Iterator[str], set[str], Iterator[Folder]]:
    """Its names, and what is in the folders among them, in that order."""
    folders = [name for name in folder.names if name[-1] == "/"]
    return key, iter(folder.names), folder.odd, _below(scan, key, folders)


def _below(scan: Scan, above: str, names: Sequence[str]) -> Iterator[Folder]:
    if len(names) < _FOLDERS:
        yield from (_whole(scan, above + name) for name in names)
        return
    waits, took, worked = False, 0.0, 0.0

    def read(batch: Sequence[str]) -> list[Folder]:
        nonlocal waits, took, worked
        began, busy = time.perf_counter(), time.thread_time()
        found = _read(scan, above, batch)
        took = _FADES * took + time.perf_counter() - began
        worked = _FADES * worked + time.thread_time() - busy
        waits = waits or took - worked > _WAITED * took
        return found

    batches = (names[n : n + _FOLDERS] for n in range(0, len(names), _FOLDERS))
    for batch, found in ahead(batches, read, _THREADS, at_once=lambda _: not waits):
        yield from found
        yield from (_whole(scan, above + name) for name in batch[len(found) :])


def _read(scan: Scan, above: str, names: Sequence[str]) -> list[Folder]:
    """The first of these folders: up to one that has too many names, or that cannot be read, which is found out again when
    it is its turn."""
    found: list[Folder] = []
    left = _NAMES
    for name in names:
        try:
            folder = scan(above + name, left)
        except StoreError:
            break
        if folder is None:
            break
        found.append(folder)
        left -= len(folder.names)
    return found


def _whole(scan: Scan, key: str) -> Folder:
    folder = scan(key)
    assert folder is not None, "nothing is too much"
    return folder
