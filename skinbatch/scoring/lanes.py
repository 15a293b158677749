"""Score several batches at the same time, each on a thread of its own."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from skinbatch.scoring.ahead import Activity, PreparedPhoto
from skinbatch.scoring.budget import Budget
from skinbatch.scoring.earlier import Earlier
from skinbatch.scoring.failures import DeviceLost
from skinbatch.scoring.scorer import Scorer
from skinbatch.types import ImageResult

Scored = tuple[PreparedPhoto, ImageResult | None]


class Lanes:
    """Run threads that share a scorer. Results come in the photos' order."""

    def __init__(self, count: int, scorer: Scorer, activity: Activity) -> None:
        self.count = count
        self.scorer = scorer
        self.activity = activity
        # The decoders' threads cannot be used here: they may be waiting for room, which needs
        # photos to be scored.
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="score")

    def scored(
        self,
        photos: Iterator[PreparedPhoto],
        budget: Budget,
        expected: int | None = None,
        earlier: Callable[[PreparedPhoto], Earlier | None] = lambda ready: None,
    ) -> Generator[Scored, None, None]:
        """Yield every photo without its pixels, with its result if it had any.

        A batch has `scorer.batch_size` photos, or fewer if they are large: one more batch than
        there are lanes fits into the budget. The last photos are dealt out evenly, so that no lane
        waits long for another at the end of the unit.

        An exception from `photos` is raised here after running batches have ended, so that they do
        not disturb the next unit. DeviceLost takes precedence over it.

        expected: number of photos, if known. earlier: returns what can be taken for a photo.
        """
        sizes = _Sizes(self.scorer.batch_size, self.count, expected)
        batches = _batches(photos, sizes, budget.limit // (self.count + 1), earlier)
        begun: deque[tuple[_Batch, Future[list[ImageResult]]]] = deque()
        try:
            while self._begin(batches, begun, budget):
                if len(begun) > self.count:
                    yield from _results(begun)
            while begun:
                yield from _results(begun)
        except DeviceLost:
            raise  # nothing that is running is worth waiting for
        except BaseException:
            _abandon([future for _, future in begun])
            raise

    def _begin(
        self,
        batches: Iterator[_Batch],
        begun: deque[tuple[_Batch, Future[list[ImageResult]]]],
        budget: Budget,
    ) -> bool:
        start = time.perf_counter()
        idle = all(future.done() for _, future in begun)
        batch = next(batches, None)
        if idle:
            self.scorer.seconds.add("wait", time.perf_counter() - start)
        if batch is None:
            return False
        budget.scoring(batch.bytes)
        begun.append((batch, self._pool.submit(self._score, batch, budget)))
        return True

    def _score(self, batch: _Batch, budget: Budget) -> list[ImageResult]:
        try:
            with self.activity:
                return self.scorer.score_batch(batch.pixels, batch.earlier)
        finally:
            batch.pixels.clear()
            budget.scored(batch.bytes)


class _Batch:
    """Hold one batch.

    photos: without their pixels, and whether they had any. pixels: of those that had; cleared when
    they are scored. earlier: what can be taken for each of those. bytes: size of the pixels.
    """

    def __init__(self) -> None:
        self.photos: list[tuple[PreparedPhoto, bool]] = []
        self.pixels: list[NDArray[np.uint8]] = []
        self.earlier: list[Earlier | None] = []
        self.bytes = 0

    def add(self, ready: PreparedPhoto, earlier: Callable[[PreparedPhoto], Earlier | None]) -> None:
        self.photos.append((replace(ready, rgb=None), ready.rgb is not None))
        if ready.rgb is not None:
            self.pixels.append(ready.rgb)
            self.earlier.append(earlier(ready))
            self.bytes += ready.rgb.nbytes


class _Sizes:
    """Choose how many photos the next batch has.

    Each lane gets as many batches as the others, and their sizes differ by one at most.
    """

    def __init__(self, most: int, lanes: int, photos: int | None) -> None:
        """Create the choice. most: the largest batch. photos: still to come, None if unknown."""
        self.most = most
        self._left = photos or 0
        self._batches = math.ceil(self._left / (most * lanes)) * lanes

    def next(self) -> int:
        """Return the size of the next batch; the largest if the number of photos is not known."""
        if self._left <= 0 or self._batches <= 0:
            return self.most
        return min(self.most, math.ceil(self._left / self._batches))

    def taken(self, photos: int) -> None:
        self._left -= photos
        self._batches -= 1


def _batches(
    photos: Iterator[PreparedPhoto],
    sizes: _Sizes,
    most_bytes: int,
    earlier: Callable[[PreparedPhoto], Earlier | None],
) -> Iterator[_Batch]:
    """Yield batches of the next size.

    A batch holds at most `most_bytes` of pixels, but at least one photo, and at most 8 times the
    largest batch in photos of any kind.
    """
    batch, size = _Batch(), sizes.next()
    for ready in photos:
        if batch.pixels and ready.rgb is not None and batch.bytes + ready.rgb.nbytes > most_bytes:
            sizes.taken(len(batch.photos))
            yield batch
            batch, size = _Batch(), sizes.next()
        batch.add(ready, earlier)
        del ready  # it would hold its pixels until the next photo is ready
        if (
            len(batch.pixels) == size
            or batch.bytes >= most_bytes
            or len(batch.photos) == 8 * sizes.most
        ):
            sizes.taken(len(batch.photos))
            yield batch
            batch, size = _Batch(), sizes.next()
    if batch.photos:
        yield batch


def _results(begun: deque[tuple[_Batch, Future[list[ImageResult]]]]) -> Iterator[Scored]:
    batch, future = begun.popleft()
    results = iter(future.result())
    for ready, has_pixels in batch.photos:
        yield ready, next(results) if has_pixels else None


def _abandon(futures: list[Future[list[ImageResult]]]) -> None:
    """Cancel what has not begun and wait for the rest."""
    for future in as_completed([future for future in futures if not future.cancel()]):
        error = future.exception()
        if isinstance(error, DeviceLost):
            raise error
