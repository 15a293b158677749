"""Turn the members of a shard into rows: select the photos and refuse unsafe members."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count, islice

from skinbatch.archive.formats import (
    HEAD_BYTES,
    extension,
    has_image_name,
    image_format,
    is_junk,
    skip_name,
)
from skinbatch.archive.globs import EXCLUDED, MemberGlobs
from skinbatch.archive.member import (
    BrokenArchiveError,
    Member,
    MemberError,
    UniqueNames,
    contained,
    refusal,
    shown_name,
)
from skinbatch.archive.sidecars import SIDECAR, Keys, read_sidecar
from skinbatch.errors import DiskError
from skinbatch.types import Fetched, ImageRef, ShardRef, Status

_GROUP_BYTES = 64 << 20
_GROUP_PHOTOS = 16


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
                is_row = globs.wants(shown_name(member.name)) and _is_photo(member, globs)
                member.skip()
                count += is_row
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
    names, keys = UniqueNames(), Keys()
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
                if member.kind == "file" and extension(name) == SIDECAR:
                    group.sidecars += 1
                    if within() or group.held:
                        group.meta.update(keys.kept(read_sidecar(member)))
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
    names, globs = UniqueNames(), MemberGlobs(shard)
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


def _count_sidecars(group: _Group, skipped: Counter[str], within: bool) -> None:
    if within and group.sidecars and not group.photos:
        skipped[SIDECAR] += group.sidecars


def _stem(name: str) -> str:
    folder, last = posixpath.split(name)
    return f"{folder}/{last.partition('.')[0]}"
