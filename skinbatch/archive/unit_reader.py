"""Read the photos of one unit, whatever its source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

from skinbatch.archive.fetch import LooseReader
from skinbatch.archive.reader_activity import Reading
from skinbatch.archive.shard import ShardReader
from skinbatch.config import DecodeSettings
from skinbatch.storage.locate import Locator
from skinbatch.types import Fetched, ImageRef, WorkUnit


class UnitReader(Protocol):
    """Yield photos once. vanished, changed and skipped are complete after the iteration.

    vanished: listed photos that are gone (they have no Fetched). changed: loose photos whose
    version was not the listed one, as they were read. skipped: members of a shard that are not
    photos, by extension.
    """

    vanished: list[ImageRef]
    changed: list[ImageRef]
    skipped: Counter[str]

    def __iter__(self) -> Iterator[Fetched]: ...


def read_unit(
    unit: WorkUnit,
    locator: Locator,
    settings: DecodeSettings,
    threads: int,
    skip: Callable[[ImageRef], bool] | None = None,
    reading: Reading | None = None,
) -> UnitReader:
    """Return a reader of the unit's photos, in order. Loose photos are fetched ahead by threads.

    Args:
        threads: number of threads for loose photos.
        skip: returns True for loose photos that are left out, unread.
        reading: observes the reading of a shard.

    Raises while iterating:
        ChangedError: a shard, or a photo for the second time, is not the listed version.
        NotFoundError: a shard is gone.
        ForbiddenError: nothing can be read, not just one object (see LooseReader and ShardReader).
        StoreError: anything else, such as a folder of local files that is gone with them.
    """
    if unit.shard is not None:
        return ShardReader(unit.shard, locator, settings, unit.start, unit.stop, reading)
    return LooseReader(unit, locator, settings, threads, skip)
