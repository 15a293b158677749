"""Fetch and decode ahead of the models: threads that keep photos ready, in order, within a budget of pixels."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skinbatch.archive.decode import PhotoError, decode
from skinbatch.config import DecodeSettings
from skinbatch.types import Fetched, Status


@dataclass(frozen=True, slots=True)
class Ready:
    """One photo on its way to the models. rgb: (H, W, 3) uint8 as displayed, None where `status` says why not, or
    where the photo was not wanted (`status` ok). sha256: of the file's bytes, None where there are none."""

    fetched: Fetched
    sha256: str | None
    rgb: NDArray[np.uint8] | None
    status: Status
    error: str | None


class Activity:
    """Counts what decodes or computes at the moment; a context manager that threads enter at the same time."""

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


class _Budget:
    """Bounds the bytes of photos that wait: files are fetched while files and pixels together are under the limit, and
    decoded while pixels are. The photo that is next in order always passes, whatever it needs."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.files = 0
        self.pixels = 0
        self.next = 0
        self.closed = False
        self.changed = threading.Condition()

    def fetched(self, order: int, size: int) -> None:
        """Wait for room for a file, then hold it."""
        with self.changed:
            self.changed.wait_for(lambda: self.closed or self.files + self.pixels < self.limit or order <= self.next)
            self.files += size

    def enter(self, order: int) -> None:
        """Wait for room for the pixels of a photo."""
        with self.changed:
            self.changed.wait_for(lambda: self.closed or self.pixels < self.limit or order <= self.next)

    def decoded(self, size: int, pixels: int) -> None:
        """Hold pixels instead of the file."""
        with self.changed:
            self.files -= size
            self.pixels += pixels
            self.changed.notify_all()

    def leave(self, order: int, size: int) -> None:
        with self.changed:
            self.pixels -= size
            self.next = order + 1
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()


def decoded_ahead(
    photos: Iterable[Fetched],
    settings: DecodeSettings,
    pool: ThreadPoolExecutor,
    ahead: int,
    wanted: Callable[[Fetched, str], bool],
    on_decoded: Callable[[], None],
    activity: Activity | None = None,
) -> Generator[Ready, None, None]:
    """Photos in their order, hashed and decoded by the pool's threads.

    ahead: photos that may be in the making. wanted: given a photo and its SHA-256, whether to decode it.
    on_decoded: called from the pool's threads for every photo. activity: entered while a photo is decoded. What `photos`
    raises is raised here.
    """
    budget = _Budget(settings.ahead_bytes)
    waiting: queue.Queue[Future[Ready] | Exception | None] = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(item: Future[Ready] | Exception | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make(order: int, fetched: Fetched) -> Ready:
        budget.enter(order)
        with activity or nullcontext():
            ready = _decode(fetched, settings, wanted)
        budget.decoded(len(fetched.data or b""), _size(ready))
        on_decoded()
        return ready

    def feed() -> None:
        last: Exception | None = None
        try:
            for order, fetched in enumerate(photos):
                budget.fetched(order, len(fetched.data or b""))
                if not put(pool.submit(make, order, fetched)):
                    return
        except Exception as e:  # raised where the photos are consumed
            last = e
        put(last)

    feeder = threading.Thread(target=feed, name="fetch", daemon=True)
    feeder.start()
    try:
        order = 0
        while (item := waiting.get()) is not None:
            if isinstance(item, Exception):
                raise item
            ready = item.result()
            yield ready
            budget.leave(order, _size(ready))
            order += 1
    finally:
        stopped.set()
        budget.close()
        feeder.join()


def _decode(fetched: Fetched, settings: DecodeSettings, wanted: Callable[[Fetched, str], bool]) -> Ready:
    if fetched.data is None:
        return Ready(fetched, None, None, fetched.status, fetched.error)
    sha256 = hashlib.sha256(fetched.data).hexdigest()
    without_bytes = Fetched(fetched.ref, None, fetched.status, fetched.error)
    if not wanted(fetched, sha256):
        return Ready(without_bytes, sha256, None, Status.OK, None)
    try:
        rgb = decode(fetched.data, settings, fetched.ref.image_id).rgb
    except PhotoError as e:
        return Ready(without_bytes, sha256, None, e.status, str(e))
    return Ready(without_bytes, sha256, rgb, Status.OK, None)


def _size(ready: Ready) -> int:
    return 0 if ready.rgb is None else ready.rgb.nbytes
