"""Fetch loose photos ahead, in order, and record those that are not as listed."""

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
from skinbatch.storage.locate import Locator, is_s3
from skinbatch.storage.store import ObjectInfo, Store
from skinbatch.types import Fetched, ImageRef, Status, WorkUnit

_AHEAD_BYTES = 64 << 20
_UNKNOWN_BYTES = 4 << 20  # of a photo without a listed size
_FORBIDDEN_ALIKE = 20
_CONTENT_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Read:
    """Hold the outcome of reading one photo.

    ref: as listed. fetched: None if the photo is gone. changed: its version is not the listed one.
    """

    ref: ImageRef
    fetched: Fetched | None
    changed: bool = False
    forbidden: ForbiddenError | None = None

    @property
    def readable(self) -> bool:
        return self.fetched is not None and self.forbidden is None


class LooseReader:
    """Read a unit's loose photos.

    After the iteration, `vanished` and `changed` are complete; the latter has photos as they are
    now.

    A photo that may not be read becomes a row only if another one can be read: one of this unit,
    the one that was read last, or, unless 20 photos were refused, one in the same folder.
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
        # Photos are held back until it is known whether only one or all of them cannot be read.
        held: list[_Read] = []
        refused: list[_Read] = []
        proven = False
        for _, read in ahead(
            self._refs, self._read, self._threads, budget=_AHEAD_BYTES, cost=_cost
        ):
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
            raise ForbiddenError(
                f"{photos} of a unit may not be read, nor anything beside: {first.forbidden}"
            )

    def _given(self, reads: list[_Read]) -> Iterator[Fetched]:
        for read in reads:
            if read.fetched is None:
                self.vanished.append(read.ref)
                continue
            if read.fetched.data:
                # Noted here and not in the threads: photos that were read ahead do not vouch for
                # the first ones.
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
                # Read the current version. If it changes again, the caller gets the ChangedError.
                data, info = store.get(key, version=store.head(key).version, limit=self._limit)
        now = _as_read(ref, info)
        return _Read(ref, Fetched(now, data), changed=now != ref)


def _as_read(ref: ImageRef, info: ObjectInfo) -> ImageRef:
    """Return the photo as it was read.

    Facts that the listing lacks stay unknown, so that the next plan finds the same photo in it.
    """
    return replace(
        ref,
        size=None if ref.size is None else info.size,
        version=None if ref.version is None else info.version,
    )


def _cost(ref: ImageRef) -> int:
    return _UNKNOWN_BYTES if ref.size is None else ref.size
