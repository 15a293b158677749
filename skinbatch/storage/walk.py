"""Files below a folder in the order in which an object store lists them, whatever reads the folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from skinbatch.errors import StoreError
from skinbatch.lookahead import ahead

_THREADS = 4
"""More are slower where the folders are in memory, and hardly faster where they are not."""
_FOLDERS = 128
"""Folders that a thread reads in one go; fewer than that in one folder are read as they come."""
_NAMES = 10_000
"""Names that such a go holds at most."""


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
    some = (names[n : n + _FOLDERS] for n in range(0, len(names), _FOLDERS))
    for batch, found in ahead(some, partial(_read, scan, above), _THREADS):
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
