"""Fetch and decode photos ahead of the models.

Threads keep decoded photos ready, in order, within a budget of pixels.
"""

from __future__ import annotations

import hashlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skinbatch.archive.decode import MemoryFull, PhotoError, decode, expected_bytes
from skinbatch.config import DecodeSettings
from skinbatch.scoring.budget import Budget
from skinbatch.scoring.seconds import Seconds
from skinbatch.types import Fetched, Status


@dataclass(frozen=True, slots=True)
class PreparedPhoto:
    """Hold one photo on its way to the models.

    rgb: (H, W, 3) uint8 as displayed. None if `status` gives the reason why it cannot be scored, or if
    the photo was not needed (`status` ok). sha256: of the file's bytes, None if there are none.
    """

    fetched: Fetched
    sha256: str | None
    rgb: NDArray[np.uint8] | None
    status: Status
    error: str | None


class Activity:
    """Count what is decoding or computing at the moment.

    It is a context manager that threads enter at the same time.
    """

    def __init__(self) -> None:
        self._running = 0
        self._lock = threading.Lock()

    @property
    def idle(self) -> bool:
        return self._running == 0

    def __enter__(self) -> None:
        with self._lock:
            self._running += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._running -= 1


def decoded_ahead(
    photos: Iterable[Fetched],
    settings: DecodeSettings,
    pool: ThreadPoolExecutor,
    budget: Budget,
    is_needed: Callable[[Fetched, str], bool],
    on_decoded: Callable[[], None],
    activity: Activity | None = None,
    alone: bool = False,
    seconds: Seconds | None = None,
) -> Generator[PreparedPhoto, None, None]:
    """Yield photos in their order, hashed and decoded by the pool's threads.

    An exception from `photos` is raised here. When the generator ends, no thread of the pool is
    working for it any more.

    Args:
        budget: limits these photos alone. Whoever takes them reports what becomes of their pixels.
        is_needed: called with a photo and its SHA-256; returns whether to decode it.
        on_decoded: called from the pool's threads for every photo.
        activity: entered while a photo is hashed or decoded.
        alone: the unit has no other photo that could have used up the memory. A photo that does not
            fit into memory then becomes `too_large`; otherwise it raises MemoryError.
        seconds: receives the time of `decode`, over all threads, and of `fetch`, for which nothing
            came from `photos`.
    """
    seconds = seconds or Seconds()
    waiting: queue.Queue[Future[PreparedPhoto] | Exception | None] = queue.Queue(
        maxsize=budget.photos
    )
    stopped = threading.Event()

    def put(item: Future[PreparedPhoto] | Exception | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make(order: int, fetched: Fetched) -> PreparedPhoto:
        data = fetched.data or b""
        with activity or nullcontext():
            sha256 = None if fetched.data is None else hashlib.sha256(data).hexdigest()
            to_decode = sha256 is not None and is_needed(fetched, sha256)
            expected = expected_bytes(data, settings) if to_decode else 0
        budget.enter(order, expected)
        start = time.perf_counter()
        with activity or nullcontext():
            ready = _decode(fetched, sha256, to_decode, settings, alone)
        seconds.add("decode", time.perf_counter() - start)
        budget.decoded(len(data), expected, 0 if ready.rgb is None else ready.rgb.nbytes)
        on_decoded()
        return ready

    def feed() -> None:
        last: Exception | None = None
        try:
            for order, fetched in enumerate(_timed(photos, seconds)):
                budget.read(order, len(fetched.data or b""))
                future = pool.submit(make, order, fetched)
                if not put(future):
                    _abandon(future)
                    return
        except Exception as e:  # it is raised where the photos are consumed
            last = e
        put(last)

    feeder = threading.Thread(target=feed, name="fetch", daemon=True)
    feeder.start()
    try:
        for order in itertools.count():
            budget.ask(order)
            taken = _taken(waiting.get())
            if not taken:
                return
            yield taken.pop()  # a variable would hold its pixels until the next photo is ready
    finally:
        stopped.set()
        budget.close()
        feeder.join()
        while not waiting.empty():
            _abandon(waiting.get())


def _timed(photos: Iterable[Fetched], seconds: Seconds) -> Iterator[Fetched]:
    """Yield the photos, and add the time in which each of them was waited for."""
    start = time.perf_counter()
    for fetched in photos:
        seconds.add("fetch", time.perf_counter() - start)
        yield fetched
        start = time.perf_counter()


def _taken(item: Future[PreparedPhoto] | Exception | None) -> list[PreparedPhoto]:
    """Return one photo, or none at the end."""
    if isinstance(item, Exception):
        raise item
    return [] if item is None else [item.result()]


def _abandon(item: Future[PreparedPhoto] | Exception | None) -> None:
    if isinstance(item, Future) and not item.cancel():
        wait([item])


def _decode(
    fetched: Fetched, sha256: str | None, to_decode: bool, settings: DecodeSettings, alone: bool
) -> PreparedPhoto:
    if fetched.data is None:
        return PreparedPhoto(fetched, None, None, fetched.status, fetched.error)
    without_bytes = Fetched(fetched.ref, None, fetched.status, fetched.error)
    if not to_decode:
        return PreparedPhoto(without_bytes, sha256, None, Status.OK, None)
    try:
        rgb = decode(fetched.data, settings, fetched.ref.image_id).rgb
    except PhotoError as e:
        if isinstance(e, MemoryFull) and not alone:
            raise MemoryError(str(e)) from e
        return PreparedPhoto(without_bytes, sha256, None, e.status, str(e))
    return PreparedPhoto(without_bytes, sha256, rgb, Status.OK, None)
