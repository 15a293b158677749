"""Members of an archive file to rows: which are photos, what they are called, which are refused."""

from __future__ import annotations

import hashlib
import json
import logging
import posixpath
import re
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Any, Literal, Protocol

from skinbatch.archive.formats import HEAD_BYTES, extension, has_image_name, image_format, is_junk, skip_name
from skinbatch.archive.globs import EXCLUDED, MemberGlobs
from skinbatch.errors import DiskError, SkinbatchError
from skinbatch.logs import event
from skinbatch.redact import redacted
from skinbatch.types import Fetched, ImageRef, ShardRef, Status

_SIDECAR = ".json"
_SIDECAR_BYTES = 1 << 20
_GROUP_BYTES = 64 << 20
_GROUP_PHOTOS = 16
_META_KEYS = 256
_META_KEY_LENGTH = 256
_META_TEXT = 128 << 20
_BREAKS = ("#truncated", "#corrupt", "#unreadable")

MemberKind = Literal["file", "folder", "link", "special", "encrypted"]


class BrokenArchiveError(Exception):
    """The archive cannot be read on. status: truncated, corrupt or unreadable."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


class MemberError(Exception):
    """This member cannot be read; the ones after it can."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def contained() -> Iterator[None]:
    """What a file does to its reader that nothing foresaw breaks this archive, and not the run."""
    try:
        yield
    except (BrokenArchiveError, MemberError, SkinbatchError, OSError, MemoryError):
        raise
    except Exception as e:
        event("reader", logging.WARNING, message=f"{type(e).__name__}: {e}", traceback=traceback.format_exc())
        raise BrokenArchiveError(Status.CORRUPT, f"cannot be read on: {type(e).__name__}: {str(e)[:200]}") from e


class Member(Protocol):
    """One member, to be read before the next one is asked for. name: as stored. size: bytes, unpacked."""

    name: str
    size: int
    kind: MemberKind

    def head(self) -> bytes:
        """The first bytes, enough to tell what it is."""

    def read(self) -> bytes:
        """All bytes. Raises MemberError, BrokenArchiveError."""

    def skip(self) -> None:
        """Pass over what is left of it. Raises BrokenArchiveError."""


@dataclass(slots=True)
class _Group:
    """Consecutive members with one stem: photos and the sidecar that speaks of them."""

    stem: str
    held: list[Fetched] = field(default_factory=list)
    bytes: int = 0
    meta: dict[str, str] = field(default_factory=dict)
    photos: int = 0
    sidecars: int = 0

    def hold(self, fetched: Fetched) -> None:
        self.held.append(fetched)
        self.bytes += len(fetched.data or b"")

    def flush(self) -> Iterator[Fetched]:
        for fetched in self.held:
            yield replace(fetched, ref=replace(fetched.ref, meta=self.meta)) if self.meta else fetched
        self.held, self.bytes = [], 0


def count_rows(members: Iterable[Member], shard: ShardRef) -> int:
    """How many rows `rows` gives of all members, a break included."""
    count = 0
    globs = MemberGlobs(shard)
    try:
        with contained():
            for member in members:
                wanted = globs.wants(shown_name(member.name)) and _is_photo(member, globs)
                member.skip()
                count += wanted
    except (BrokenArchiveError, DiskError):
        count += 1
    return count


def rows(
    members: Iterable[Member], shard: ShardRef, start: int, stop: int | None, limit: int, skipped: Counter[str]
) -> Iterator[Fetched]:
    """Photos with ordinals [start, stop), in order, with the meta of their sidecars.

    Every photo member is one row and takes one ordinal, refused and broken ones too; so does the break that ends an
    archive early. A sidecar is a `.json` beside a photo of the same stem (the name up to the first dot of its last
    part); the first 256 distinct keys of a range pass through, of up to 256 characters each, and its first 128 Mi
    characters of values; others are dropped, so that no archive can give a table columns, or a worker text, without
    end. A name that has come before gets `#2`, or the first number that makes it one of its own. limit: bytes of a photo
    that are read at most. skipped: other members, each counted in one range only, and those that the shard's globs
    leave out; a sidecar goes with its photo, whatever the globs say of it.
    """
    ordinal = 0
    names, keys = _Names(), _Keys()
    globs = MemberGlobs(shard)
    group = _Group("")

    def within() -> bool:
        return start <= ordinal and (stop is None or ordinal < stop)

    try:
        with contained():
            for member in members:
                if member.kind == "folder":
                    continue
                name = shown_name(member.name)
                if (stem := _stem(name)) != group.stem:
                    yield from group.flush()
                    _count_sidecars(group, skipped, within())
                    if stop is not None and ordinal >= stop:
                        return
                    group = _Group(stem)
                if member.kind == "file" and extension(name) == _SIDECAR:
                    group.sidecars += 1
                    if within() or group.held:
                        group.meta.update(keys.kept(_sidecar(member)))
                    continue
                if not globs.wants(name):
                    skipped[EXCLUDED] += within()
                    group.photos += has_image_name(name)
                    continue
                if not _is_photo(member, globs):
                    skipped[skip_name(name)] += within()
                    continue
                group.photos += 1
                image_id = names.own(name)
                if within():
                    ref = ImageRef(f"{shard.key}/{image_id}", f"{shard.uri}/{name}", member.size, shard.version)
                    group.hold(_fetch(member, ref, limit))
                    if len(group.held) >= _GROUP_PHOTOS or group.bytes >= _GROUP_BYTES:
                        yield from group.flush()
                else:
                    member.skip()
                ordinal += 1
            yield from group.flush()
            _count_sidecars(group, skipped, within())
    except (BrokenArchiveError, DiskError) as e:
        yield from group.flush()
        if within():
            yield broken_row(shard, e)


def find_photo(members: Iterable[Member], shard: ShardRef, image_id: str, limit: int) -> Fetched | None:
    """The one photo that `rows` calls image_id, without reading the others; None if there is none of that name.

    Raises BrokenArchiveError where the archive ends before it.
    """
    names, globs = _Names(), MemberGlobs(shard)
    with contained():
        for member in members:
            name = shown_name(member.name)
            if not globs.wants(name) or not _is_photo(member, globs):
                member.skip()
                continue
            if f"{shard.key}/{names.own(name)}" == image_id:
                return _fetch(member, ImageRef(image_id, f"{shard.uri}/{name}", member.size, shard.version), limit)
            member.skip()
    return None


def broken_row(shard: ShardRef, e: BrokenArchiveError | DiskError) -> Fetched:
    """The row that stands for what an archive lost."""
    status = e.status if isinstance(e, BrokenArchiveError) else Status.UNREADABLE
    ref = ImageRef(f"{shard.key}/#{status}", shard.uri, shard.size, shard.version)
    return Fetched(ref, None, status, f"{shard.uri}: {str(e).removeprefix(f'{shard.uri}: ')}")


def unnamed_ref(shard: ShardRef, ordinal: int, status: Status) -> ImageRef:
    """The member with this ordinal where its name cannot be read: the number of a row of Parquet is its name."""
    if shard.kind == "parquet":
        globs = MemberGlobs(shard)
        name = next(islice((row for row in map(str, count()) if globs.wants(row)), ordinal, None))
    else:
        name = f"#{status}-{ordinal}"
    return ImageRef(f"{shard.key}/{name}", shard.uri, shard.size, shard.version)


def shown_name(name: str) -> str:
    """As it is written in tables: without a leading `./`, bytes that are no text escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    while text.startswith("./"):
        text = text[2:].lstrip("/")
    return text


def refusal(member: Member) -> str | None:
    """Why a member is not read."""
    name = member.name
    if "\0" in name:
        return "its name holds a NUL"
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", name):
        return "its name is an absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "its name leads out of the archive"
    reasons = {"link": "it is a link", "special": "it is a device or a sparse file", "encrypted": "it is encrypted"}
    return reasons.get(member.kind)


def flat_meta(values: Mapping[str, Any]) -> dict[str, str]:
    """Return pass-through columns as text: numbers, lists and objects as JSON, anything else (a UUID) in its plain text.

    Nothing for null, and no signed query strings, which datasets carry along with the addresses that their photos came from.
    """
    return {str(key): redacted(_text(value)) for key, value in values.items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, bool | int | float | list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _is_photo(member: Member, globs: MemberGlobs) -> bool:
    if member.kind == "folder":
        return False
    name = shown_name(member.name)
    if has_image_name(name):
        return True
    return (
        (not extension(name) or globs.names_extension(name))
        and refusal(member) is None
        and not is_junk(name)
        and image_format(member.head()[:HEAD_BYTES]) is not None
    )


def _fetch(member: Member, ref: ImageRef, limit: int) -> Fetched:
    if (reason := refusal(member)) is not None:
        member.skip()
        return Fetched(ref, None, Status.REFUSED, f"{ref.uri}: {reason}")
    if member.size > limit:
        member.skip()
        error = f"{ref.uri}: {member.size:,} bytes, over max_image_bytes ({limit:,}); raise it in [decode]"
        return Fetched(ref, None, Status.TOO_LARGE, error)
    try:
        return Fetched(ref, member.read())
    except MemberError as e:
        return Fetched(ref, None, e.status, f"{ref.uri}: {e}")


def _sidecar(member: Member) -> dict[str, str]:
    """Nothing of a sidecar that is too large, or not one JSON object."""
    if member.size > _SIDECAR_BYTES:
        return {}
    try:
        found = json.loads(member.read())
        return flat_meta(found) if isinstance(found, dict) else {}
    except (MemberError, ValueError, RecursionError):
        return {}


def _count_sidecars(group: _Group, skipped: Counter[str], within: bool) -> None:
    if within and group.sidecars and not group.photos:
        skipped[_SIDECAR] += group.sidecars


def _stem(name: str) -> str:
    folder, last = posixpath.split(name)
    return f"{folder}/{last.partition('.')[0]}"


class _Names:
    """Gives every photo of an archive a name of its own. Digests are kept, not names: shards can be long."""

    def __init__(self) -> None:
        self._numbers = {_digest(name): 1 for name in _BREAKS}

    def own(self, name: str) -> str:
        first = _digest(name)
        number = self._numbers.get(first, 0) + 1
        found, digest = name, first
        while number > 1 and (digest := _digest(found := f"{name}#{number}")) in self._numbers:
            number += 1
        self._numbers[digest] = 1
        self._numbers[first] = number
        return found


class Texts:
    """How much text passes through: an archive of a few megabytes can unpack to gigabytes of it."""

    def __init__(self) -> None:
        self._left = _META_TEXT

    def fit(self, meta: Mapping[str, str]) -> bool:
        """Whether these values still do, with all before them."""
        self._left -= sum(len(value) for value in meta.values())
        return self._left >= 0


class _Keys:
    """The keys of sidecars that pass through."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._texts = Texts()

    def kept(self, meta: dict[str, str]) -> dict[str, str]:
        if not self._texts.fit(meta):
            return {}
        for key in meta:
            if len(self._known) >= _META_KEYS:
                break
            if len(key) <= _META_KEY_LENGTH:
                self._known.add(key)
        return {key: value for key, value in meta.items() if key in self._known}


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()
