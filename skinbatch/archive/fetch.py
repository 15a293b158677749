"""Loose photos: their bytes, in order, fetched ahead; and what became of those that are not as listed."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from skinbatch.archive.access import check_mounted, others_readable
from skinbatch.config import DecodeSettings
from skinbatch.errors import ChangedError, ForbiddenError, NotFoundError, ObjectTooLargeError
from skinbatch.lookahead import ahead
from skinbatch.storage.base import ObjectInfo, Store
from skinbatch.storage.locate import Locator, is_s3
from skinbatch.types import Fetched, ImageRef, Status, WorkUnit

_AHEAD_BYTES = 64 << 20
_UNKNOWN_BYTES = 4 << 20  # of a photo whose size the listing does not say
_FORBIDDEN_ALIKE = 20
_CONTENT_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Read:
    """ref: as listed. fetched None: the photo is gone. changed: it is not the version that was listed."""

    ref: ImageRef
    fetched: Fetched | None
    changed: bool = False
    forbidden: ForbiddenError | None = None

    @property
    def readable(self) -> bool:
        return self.fetched is not None and self.forbidden is None


class LooseReader:
    """Photos of a unit that are files of their own. After the iteration: vanished, changed (as they are now).

    A photo that may not be read is a row only where another one can be: of this unit, or the one read last, or, unless
    20 photos were refused alike, one in the same folder.
    """

    def __init__(
        self,
        unit: WorkUnit,
        locator: Locator,
        settings: DecodeSettings,
        threads: int,
        skip: Callable[[ImageRef], bool] | None = None,
    ) -> None:
        self.vanished: list[ImageRef] = []
        self.changed: list[ImageRef] = []
        self.skipped: Counter[str] = Counter()
        self._refs = [ref for ref in unit.images if skip is None or not skip(ref)]
        self._uris = [ref.uri for ref in unit.images]
        self._locator, self._limit, self._threads = locator, settings.max_image_bytes, threads

    def __iter__(self) -> Iterator[Fetched]:
        # Held back until it is known whether this is one photo's misfortune or everybody's.
        held: list[_Read] = []
        refused: list[_Read] = []
        proven = False
        for _, read in ahead(self._refs, self._read, self._threads, budget=_AHEAD_BYTES, cost=_cost):
            held.append(read)
            if not proven and not read.readable:
                refused += [read] if read.forbidden else []
                if len(refused) < _FORBIDDEN_ALIKE:
                    continue
                self._check_others(refused)
            proven = True
            yield from self._given(held)
            held = []
        if refused and not proven:
            self._check_others(refused)
        yield from self._given(held)
        if self.vanished:
            check_mounted(self._uris, self._locator)

    def _check_others(self, refused: list[_Read]) -> None:
        first, count = refused[0], len(refused)
        if not others_readable(first.ref.uri, self._locator, beside=count < _FORBIDDEN_ALIKE):
            photos = f"the first {count} photos" if count > 1 else "the first photo"
            raise ForbiddenError(f"{photos} of a unit may not be read, nor anything beside: {first.forbidden}")

    def _given(self, reads: list[_Read]) -> Iterator[Fetched]:
        for read in reads:
            if read.fetched is None:
                self.vanished.append(read.ref)
                continue
            if read.fetched.data:
                # Here, not in the threads: photos read ahead say nothing about the first ones.
                self._locator.note_read(read.ref.uri)
            if read.changed:
                self.changed.append(read.fetched.ref)
            yield read.fetched

    def _read(self, ref: ImageRef) -> _Read:
        store, key = self._locator.locate(ref.uri)
        try:
            return self._get(store, key, ref)
        except NotFoundError:
            return _Read(ref, None)
        except ObjectTooLargeError as e:
            error = f"{e}; raise max_image_bytes in [decode]"
            return _Read(ref, Fetched(ref, None, Status.TOO_LARGE, error))
        except ForbiddenError as e:
            return _Read(ref, Fetched(ref, None, Status.UNREADABLE, str(e)), forbidden=e)

    def _get(self, store: Store, key: str, ref: ImageRef) -> _Read:
        if ref.version is not None and _CONTENT_HASH.fullmatch(ref.version) and not is_s3(ref.uri):
            data, info = store.get(key, limit=self._limit)
            info = replace(info, version=hashlib.sha256(data).hexdigest())
        else:
            try:
                data, info = store.get(key, version=ref.version, size=ref.size, limit=self._limit)
            except ChangedError:
                # Once more, as it is now; another change in between is the caller's ChangedError.
                data, info = store.get(key, version=store.head(key).version, limit=self._limit)
        now = _as_read(ref, info)
        return _Read(ref, Fetched(now, data), changed=now != ref)


def _as_read(ref: ImageRef, info: ObjectInfo) -> ImageRef:
    """What a listing did not say stays unsaid, so that the next plan finds the same photo in it."""
    return replace(
        ref,
        size=None if ref.size is None else info.size,
        version=None if ref.version is None else info.version,
    )


def _cost(ref: ImageRef) -> int:
    return _UNKNOWN_BYTES if ref.size is None else ref.size
