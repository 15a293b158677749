"""Read a shard as rows, whatever its kind."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import BinaryIO, cast

from skinbatch.archive.access import check_mounted, others_readable
from skinbatch.archive.formats import HEAD_BYTES, shard_kind
from skinbatch.archive.member import BrokenArchiveError, Member, contained
from skinbatch.archive.members import broken_row, count_rows, find_photo, rows
from skinbatch.archive.parquet_file import count_rows as count_parquet_rows
from skinbatch.archive.parquet_file import parquet_rows
from skinbatch.archive.ranged import RangedFile
from skinbatch.archive.reader_activity import Reading, WatchedStream
from skinbatch.archive.tar import tar_members
from skinbatch.archive.zip import zip_members
from skinbatch.config import DecodeSettings
from skinbatch.errors import DiskError, ForbiddenError, NotFoundError
from skinbatch.storage.locate import Locator
from skinbatch.storage.store import Store
from skinbatch.types import Fetched, ImageRef, ShardRef, Status


class ShardReader:
    """Read the photos of a shard with ordinals [start, stop).

    After the iteration, `skipped` is complete. A shard that may not be read is one row,
    `#unreadable`, if something else can be read.
    """

    def __init__(
        self,
        shard: ShardRef,
        locator: Locator,
        settings: DecodeSettings,
        start: int = 0,
        stop: int | None = None,
        reading: Reading | None = None,
    ) -> None:
        self.vanished: list[ImageRef] = []
        self.changed: list[ImageRef] = []
        self.skipped: Counter[str] = Counter()
        self._shard, self._locator, self._limit = shard, locator, settings.max_image_bytes
        self._start, self._stop = start, stop
        self._reading = reading or Reading()

    def __iter__(self) -> Iterator[Fetched]:
        with closing(self._photos()) as photos:
            while True:
                with self._reading.computing():
                    fetched = next(photos, None)
                if fetched is None:
                    return
                yield fetched

    def _photos(self) -> Generator[Fetched, None, None]:
        try:
            with self._reading.at_store():
                file = _opened(self._shard, self._locator, self._reading)
            if file.kind == "parquet":
                with contained():
                    part = (self._start, self._stop)
                    step = self._reading.step
                    yield from parquet_rows(
                        file.ranged(), self._shard, part, self._limit, self.skipped, step
                    )
                return
            with file.members() as members:
                yield from rows(
                    members, self._shard, self._start, self._stop, self._limit, self.skipped
                )
        except (BrokenArchiveError, DiskError) as e:  # it could not even be opened
            if self._start == 0 and self._stop != 0:
                yield broken_row(self._shard, e)


def read_member(
    shard: ShardRef, image_id: str, locator: Locator, settings: DecodeSettings
) -> Fetched | None:
    """Return one photo of a shard by its image_id; None if there is none.

    The bytes of other photos are not read. If shard.version is None, the current version is read.
    Damage of the shard is returned as a Fetched with a status. Raises StoreError.
    """
    try:
        file = _opened(shard, locator)
        if file.kind == "parquet":
            number = image_id.removeprefix(f"{shard.key}/")
            row = int(number) if number.isdigit() else -1
            every = replace(shard, selection=replace(shard.selection, include=(), exclude=()))
            fetched = parquet_rows(
                file.ranged(), every, (row, row + 1), settings.max_image_bytes, Counter()
            )
            with contained():
                return next(fetched, None) if row >= 0 else None
        with file.members() as members:
            return find_photo(members, shard, image_id, settings.max_image_bytes)
    except (BrokenArchiveError, DiskError) as e:
        return broken_row(shard, e)


def count_members(
    shard: ShardRef, locator: Locator, step: Callable[[], None] = lambda: None
) -> int:
    """Return the number of rows of a whole shard: its photos, and one for a break.

    Photos are not read if that can be avoided: the directory of a zip, the footer of a Parquet file
    or the headers of a tar are sufficient. step: called for each member. Raises StoreError.
    """
    try:
        file = _opened(shard, locator, Reading(step=step))
        if file.kind == "parquet":
            with contained():
                return count_parquet_rows(file.ranged(), shard)
        with file.members() as members:
            return count_rows(members, shard)
    except (BrokenArchiveError, DiskError):
        return 1


def _opened(shard: ShardRef, locator: Locator, reading: Reading | None = None) -> _ShardVersion:
    """Open a shard.

    Raises BrokenArchiveError if only this shard may not be read, or StoreError.
    """
    try:
        return _ShardVersion(shard, locator, reading or Reading())
    except ForbiddenError as e:
        if others_readable(shard.uri, locator):
            raise BrokenArchiveError(Status.UNREADABLE, str(e)) from None
        raise ForbiddenError(f"{e}; nothing else there could be read either") from e
    except NotFoundError:
        check_mounted([shard.uri], locator)
        raise


class _ShardVersion:
    """Open one version of a shard. Content decides its kind, and its name if content does not."""

    def __init__(self, shard: ShardRef, locator: Locator, reading: Reading) -> None:
        self._reading = reading
        store, self._key = locator.locate(shard.uri)
        self._store: Store = store
        self._size, self._version = shard.size, shard.version
        if self._version is None:
            info = store.head(self._key)
            self._size, self._version = info.size, info.version or None
        head = store.get_range(self._key, 0, min(HEAD_BYTES, self._size), version=self._version)
        if head:
            locator.note_read(shard.uri)
        self.kind = shard_kind(head) or shard.kind

    def ranged(self) -> RangedFile:
        return RangedFile(self._store, self._key, self._size, self._version, reading=self._reading)

    @contextmanager
    def members(self) -> Iterator[Iterator[Member]]:
        if self.kind == "zip":
            yield self._stepping(zip_members(self.ranged()))
            return
        assert self.kind == "tar", f"{self.kind}: has no members to step through"
        with self._store.stream(self._key, version=self._version, size=self._size) as stream:
            watched = WatchedStream(stream, self._reading)
            yield self._stepping(
                tar_members(cast(BinaryIO, watched), self._size, self._reading.step)
            )
            # The file may continue after the tar. Only the end of a local file shows that it was
            # changed.
            watched.seek(0, os.SEEK_END)
            watched.read(1)

    def _stepping(self, members: Iterator[Member]) -> Iterator[Member]:
        for member in members:
            self._reading.step()
            yield member
