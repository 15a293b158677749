"""The photos of one unit, whatever kind of source they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

from skinbatch.archive.fetch import LooseReader
from skinbatch.archive.reading import Reading
from skinbatch.archive.shard import ShardReader
from skinbatch.config import DecodeSettings
from skinbatch.storage.locate import Locator
from skinbatch.types import Fetched, ImageRef, WorkUnit


class UnitReader(Protocol):
    """Iterate once. vanished, changed, skipped are complete when the iteration is.

    vanished: listed photos that are gone (no Fetched for them). changed: loose photos that were another version than
    listed, as they were read. skipped: members of an archive file that are not photos, by extension.
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
    """Bytes of the unit's photos, in order, fetched ahead by `threads` threads where they are files of their own.

    skip: loose photos that are left out, unread. reading: of an archive file, told what its reader does.

    Raises while iterating: ChangedError when an archive file, or a photo for the second time, is not the version that was
    listed; NotFoundError when an archive file is gone; ForbiddenError when what may not be read stands alone (see LooseReader
    and ShardReader); other StoreErrors, as when the folder of local files is gone with them.
    """
    if unit.shard is not None:
        return ShardReader(unit.shard, locator, settings, unit.start, unit.stop, reading)
    return LooseReader(unit, locator, settings, threads, skip)
