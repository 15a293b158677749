"""Turn the members of a shard into rows: select photos, name them, and refuse unsafe members."""

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

from skinbatch.archive.formats import (
    HEAD_BYTES,
    extension,
    has_image_name,
    image_format,
    is_junk,
    skip_name,
)
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
    except (BrokenArchiveError, MemberError, SkinbatchError, OSError, MemoryError):
        raise
    except Exception as e:
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


@dataclass(slots=True)
class _Group:
    """Hold consecutive members with the same stem: photos and the sidecar that describes them."""

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
            yield (
                replace(fetched, ref=replace(fetched.ref, meta=self.meta)) if self.meta else fetched
            )
        self.held, self.bytes = [], 0


def count_rows(members: Iterable[Member], shard: ShardRef) -> int:
    """Return how many rows `rows` yields for all members, including one for a break."""
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
    members: Iterable[Member],
    shard: ShardRef,
    start: int,
    stop: int | None,
    limit: int,
    skipped: Counter[str],
) -> Iterator[Fetched]:
    """Yield photos with ordinals [start, stop), in order, with the meta of their sidecars.

    Every photo member is one row and takes one ordinal, also if it is refused or broken. So does
    the break that ends a shard early.

    A sidecar is a `.json` beside a photo with the same stem (the name up to the first dot of its
    last part). The first 256 distinct keys of a range pass through, of up to 256 characters each,
    with the first 128 Mi characters of values. The rest is dropped, so that no shard can fill a
    table with columns, or a worker with text, without limit.

    A repeated name gets `#2`, or the first number that makes it unique.

    Args:
        limit: most bytes of a photo that are read.
        skipped: counts other members, each in one range only, and members that the shard's globs
            leave out. A sidecar goes with its photo, whether globs match it or not.
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
                    ref = ImageRef(
                        f"{shard.key}/{image_id}", f"{shard.uri}/{name}", member.size, shard.version
                    )
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


def find_photo(
    members: Iterable[Member], shard: ShardRef, image_id: str, limit: int
) -> Fetched | None:
    """Return the photo with this image_id without reading the others; None if there is none.

    Raises BrokenArchiveError if the shard ends before it.
    """
    names, globs = _Names(), MemberGlobs(shard)
    with contained():
        for member in members:
            name = shown_name(member.name)
            if not globs.wants(name) or not _is_photo(member, globs):
                member.skip()
                continue
            if f"{shard.key}/{names.own(name)}" == image_id:
                return _fetch(
                    member,
                    ImageRef(image_id, f"{shard.uri}/{name}", member.size, shard.version),
                    limit,
                )
            member.skip()
    return None


def broken_row(shard: ShardRef, e: BrokenArchiveError | DiskError) -> Fetched:
    """Return the row that stands for the lost part of a shard."""
    status = e.status if isinstance(e, BrokenArchiveError) else Status.UNREADABLE
    ref = ImageRef(f"{shard.key}/#{status}", shard.uri, shard.size, shard.version)
    return Fetched(ref, None, status, f"{shard.uri}: {str(e).removeprefix(f'{shard.uri}: ')}")


def unnamed_ref(shard: ShardRef, ordinal: int, status: Status) -> ImageRef:
    """Return a reference to the member with this ordinal if its name cannot be read.

    The name of a Parquet row is its number.
    """
    if shard.kind == "parquet":
        globs = MemberGlobs(shard)
        name = next(islice((row for row in map(str, count()) if globs.wants(row)), ordinal, None))
    else:
        name = f"#{status}-{ordinal}"
    return ImageRef(f"{shard.key}/{name}", shard.uri, shard.size, shard.version)


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


def flat_meta(values: Mapping[str, Any]) -> dict[str, str]:
    """Return pass-through columns as text.

    Numbers, lists and objects become JSON, and other values (a UUID) their plain text. Null values
    are left out. Signed query strings are removed, because datasets carry them along with the
    addresses of their photos.
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
    """Return the fields of a sidecar; {} if it is too large or not a JSON object."""
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
    """Give every photo of a shard a unique name.

    Digests are kept instead of names, because shards can be long.
    """

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
    """Limit the text that passes through: a shard of megabytes can unpack to gigabytes of it."""

    def __init__(self) -> None:
        self._left = _META_TEXT

    def fit(self, meta: Mapping[str, str]) -> bool:
        """Return whether these values are within the limit, together with all before them."""
        self._left -= sum(len(value) for value in meta.values())
        return self._left >= 0


class _Keys:
    """Limit the sidecar keys that pass through."""

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
