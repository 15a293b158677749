"""Describe one member of a shard: how it is read, why it may be refused, and how it is named."""

from __future__ import annotations

import hashlib
import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

from skinbatch.errors import SkinbatchError, memory_is_full
from skinbatch.logs import event
from skinbatch.types import Status

# The names of rows that stand for the lost part of a shard.
_BREAKS = ("#truncated", "#corrupt", "#unreadable")

MemberKind = Literal["file", "folder", "link", "special", "encrypted"]


class BrokenArchiveError(Exception):
    """Report a shard that cannot be read any further. status: truncated, corrupt or unreadable."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


class MemberError(Exception):
    """Report a member that cannot be read, although later ones can."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def contained() -> Iterator[None]:
    """Turn an unforeseen exception from a reader into damage of this shard; the run continues."""
    try:
        yield
    except (BrokenArchiveError, MemberError, SkinbatchError, OSError):
        raise
    except Exception as e:
        if memory_is_full(e):
            raise
        event(
            "reader",
            logging.WARNING,
            message=f"{type(e).__name__}: {e}",
            traceback=traceback.format_exc(),
        )
        raise BrokenArchiveError(
            Status.CORRUPT, f"cannot be read any further: {type(e).__name__}: {str(e)[:200]}"
        ) from e


class Member(Protocol):
    """Describe one member, which must be read before the next one is requested.

    name: as stored. size: bytes, unpacked.
    """

    name: str
    size: int
    kind: MemberKind

    def head(self) -> bytes:
        """Return the first bytes, enough to recognise the format."""

    def read(self) -> bytes:
        """Return all bytes. Raises MemberError or BrokenArchiveError."""

    def skip(self) -> None:
        """Skip the rest of the member. Raises BrokenArchiveError."""


def shown_name(name: str) -> str:
    """Return a name for tables: without a leading `./`, bytes that are not text escaped."""
    text = (
        name.encode("utf-8", "surrogateescape")
        .decode("utf-8", "backslashreplace")
        .replace("\0", "\\x00")
    )
    while text.startswith("./"):
        text = text[2:].lstrip("/")
    return text


def refusal(member: Member) -> str | None:
    """Return why a member is not read; None if it is."""
    name = member.name
    if "\0" in name:
        return "its name holds a NUL"
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", name):
        return "its name is an absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "its name leads out of the archive"
    reasons = {
        "link": "it is a link",
        "special": "it is a device or a sparse file",
        "encrypted": "it is encrypted",
    }
    return reasons.get(member.kind)


class UniqueNames:
    """Give every photo of a shard a unique name.

    Digests are kept instead of names, because shards can be long.
    """

    def __init__(self) -> None:
        self._numbers = {_digest(name): 1 for name in _BREAKS}

    def own(self, name: str) -> str:
        first = _digest(name)
        number = self._numbers.get(first, 0) + 1
        own, digest = name, first
        while number > 1 and (digest := _digest(own := f"{name}#{number}")) in self._numbers:
            number += 1
        self._numbers[digest] = 1
        self._numbers[first] = number
        return own


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()
