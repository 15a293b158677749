"""Test that batches are scored side by side: in order, within the budget of pixels, and completely."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from skinbatch.archive.decode import Photo, decode
from skinbatch.config import DecodeSettings
from skinbatch.errors import StoreError
from skinbatch.models.fake import write_fake_pack
from skinbatch.scoring import ahead
from skinbatch.scoring.ahead import Activity, PreparedPhoto, decoded_ahead
from skinbatch.scoring.budget import Budget
from skinbatch.scoring.failures import DeviceLost
from skinbatch.scoring.lanes import Lanes
from skinbatch.scoring.scorer import Scorer
from skinbatch.types import Fetched, ImageRef, ImageResult, Status
from tests.faces import face, jpeg, png

Pixels = NDArray[np.uint8]
FACE = face(2, 1)
MANY = 1 << 30


class Held:
    """Count the bytes of decoded photos that are still referenced. crowded: set once they are over `most`."""

    def __init__(self) -> None:
        self.bytes = self.peak = 0
        self.most = MANY
        self.crowded = threading.Event()
        self._lock = threading.RLock()  # an array may end while another is counted

    def decode(self, data: bytes, settings: DecodeSettings, name: str) -> Photo:
        photo = decode(data, settings, name)
        self._add(photo.rgb.nbytes)
        weakref.finalize(photo.rgb, self._add, -photo.rgb.nbytes)
        return photo

    def _add(self, size: int) -> None:
        with self._lock:
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
        if self.bytes > self.most:
            self.crowded.set()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    counted = Held()
    monkeypatch.setattr(ahead, "decode", counted.decode)
    return counted


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


class Slow:
    """Segment after calling `before`. batches: number of photos in each call."""

    def __init__(self, inner: Any, before: Callable[[Sequence[Pixels]], object]) -> None:
        self.inner, self.classes, self.map_size, self.before = (
            inner,
            inner.classes,
            inner.map_size,
            before,
        )
        self.batches: list[int] = []

    def __call__(self, photos: Sequence[Pixels]) -> list[Pixels]:
        self.batches.append(len(photos))
        self.before(photos)
        found: list[Pixels] = self.inner(photos)
        return found


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_pack(tmp_path_factory.mktemp("packs") / "fake")


def slow_scorer(pack: Path, before: Callable[[Sequence[Pixels]], object]) -> tuple[Scorer, Slow]:
    scorer = Scorer(pack, device="cpu")
    segmenter = Slow(scorer.models.segmenter, before)
    scorer.models = replace(scorer.models, segmenter=segmenter)
    return scorer, segmenter


def fetched(photos: Sequence[bytes]) -> Iterator[Fetched]:
    for n, data in enumerate(photos):
        yield Fetched(ImageRef(f"{n}", f"/p/{n}"), data)


def scored(
    photos: Sequence[bytes],
    scorer: Scorer,
    pool: ThreadPoolExecutor,
    budget: Budget,
    lanes: int = 4,
    expected: int | None = None,
) -> list[tuple[PreparedPhoto, ImageResult | None]]:
    made = decoded_ahead(
        fetched(photos), DecodeSettings(), pool, budget, lambda f, sha: True, lambda: None
    )
    with (
        closing(made),
        closing(Lanes(lanes, scorer, Activity()).scored(made, budget, expected)) as results,
    ):
        return list(results)


def test_results_come_in_the_photos_order_beside_what_could_not_be_decoded(
    pack: Path, pool: ThreadPoolExecutor
) -> None:
    photos = [png(face(n % 5, 1)) for n in range(23)]
    photos[7] = photos[7][:200]
    found = scored(photos, Scorer(pack, device="cpu"), pool, Budget(MANY, 16))
    assert [ready.fetched.ref.image_id for ready, _ in found] == [str(n) for n in range(23)]
    assert [result.count_left if result else None for _, result in found] == [
        None if n == 7 else n % 5 for n in range(23)
    ]
    assert found[7][0].status is Status.TRUNCATED
    assert all(ready.rgb is None for ready, _ in found)


def test_small_photos_fill_their_batches(pack: Path, pool: ThreadPoolExecutor) -> None:
    scorer, segmenter = slow_scorer(pack, lambda photos: None)
    scored([jpeg(FACE)] * 18, scorer, pool, Budget(DecodeSettings().ahead_bytes, 16))
    assert sorted(segmenter.batches) == [2, 4, 4, 4, 4]


@pytest.mark.parametrize(
    ("count", "expected", "batches"),
    [
        (9, 9, [2, 2, 2, 3]),
        (5, 5, [2, 3]),
        (16, 16, [4, 4, 4, 4]),
        (1, 1, [1]),
        (9, 4, [2, 2, 4, 1]),
    ],
)
def test_the_last_photos_of_a_unit_are_dealt_out_evenly(
    count: int, expected: int, batches: list[int], pack: Path, pool: ThreadPoolExecutor
) -> None:
    scorer, segmenter = slow_scorer(pack, lambda photos: None)
    found = scored([jpeg(FACE)] * count, scorer, pool, Budget(MANY, 16), lanes=2, expected=expected)
    assert len(found) == count
    assert sorted(segmenter.batches) == sorted(batches)


@pytest.mark.parametrize("photos_in_budget", [1, 2, 6, 11])
def test_batches_of_all_lanes_and_photos_decoded_ahead_are_within_one_budget(
    pack: Path, pool: ThreadPoolExecutor, held: Held, photos_in_budget: int
) -> None:
    held.most = photos_in_budget * FACE.nbytes
    scorer, _ = slow_scorer(pack, lambda photos: held.crowded.wait(0.05))
    found = scored([jpeg(FACE)] * 40, scorer, pool, Budget(held.most, 32))
    assert len(found) == 40
    assert held.peak <= held.most


def test_all_lanes_are_busy_to_the_end_where_the_budget_lets_them(
    pack: Path, pool: ThreadPoolExecutor
) -> None:
    side_by_side = threading.Barrier(4)
    scorer, _ = slow_scorer(pack, lambda photos: side_by_side.wait(20))
    scorer.batch_size = 1
    found = scored([jpeg(FACE)] * 24, scorer, pool, Budget(12 * FACE.nbytes, 16))
    assert [result.status for _, result in found if result] == [Status.OK] * 24


def test_photos_over_the_budget_are_scored_one_after_the_other(
    pack: Path, pool: ThreadPoolExecutor, held: Held
) -> None:
    held.most = FACE.nbytes
    scorer, segmenter = slow_scorer(pack, lambda photos: held.crowded.wait(0.02))
    assert len(scored([jpeg(FACE)] * 12, scorer, pool, Budget(1, 32))) == 12
    assert segmenter.batches == [1] * 12
    assert held.peak == FACE.nbytes


@given(
    sides=st.lists(st.integers(1, 60), min_size=1, max_size=30),
    broken=st.sets(st.integers(0, 29)),
    limit=st.integers(1, 40_000),
    lanes=st.integers(1, 4),
    ahead_photos=st.integers(1, 12),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_mixture_of_sizes_gets_stuck_or_holds_more_than_it_may(
    pack: Path,
    pool: ThreadPoolExecutor,
    held: Held,
    sides: list[int],
    broken: set[int],
    limit: int,
    lanes: int,
    ahead_photos: int,
) -> None:
    held.peak = held.bytes
    photos = [
        b"no photo" if n in broken else png(np.full((side, side, 3), 99, np.uint8))
        for n, side in enumerate(sides)
    ]
    found = scored(photos, Scorer(pack, device="cpu"), pool, Budget(limit, ahead_photos), lanes)
    assert [ready.fetched.ref.image_id for ready, _ in found] == [str(n) for n in range(len(sides))]
    largest = 3 * max(sides) ** 2
    assert held.peak <= max(limit, largest + limit // (lanes + 1))


def ready_photos(count: int, after: Callable[[], None]) -> Iterator[PreparedPhoto]:
    for n in range(count):
        yield PreparedPhoto(
            Fetched(ImageRef(f"{n}", f"/p/{n}"), None), "0" * 64, FACE.copy(), Status.OK, None
        )
    after()


def test_what_had_begun_has_ended_when_reading_fails(pack: Path) -> None:
    begun = threading.Barrier(4)
    running = threading.Semaphore(0)
    failed = threading.Event()

    def slow(photos: Sequence[Pixels]) -> None:
        begun.wait(30)
        failed.wait(30)
        threading.Event().wait(0.2)
        running.release()

    def fail() -> None:
        begun.wait(30)
        failed.set()
        raise StoreError("the network is gone")

    scorer, segmenter = slow_scorer(pack, slow)
    scorer.batch_size = 1
    with pytest.raises(StoreError, match="the network is gone"):
        list(Lanes(3, scorer, Activity()).scored(ready_photos(3, fail), Budget(MANY, 8)))
    assert all(running.acquire(blocking=False) for _ in range(3))
    assert segmenter.batches == [1, 1, 1]


def test_a_gpu_that_is_lost_while_reading_fails_is_not_overlooked(pack: Path) -> None:
    failed = threading.Event()

    def lost(photos: Sequence[Pixels]) -> None:
        failed.wait(30)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def fail() -> None:
        failed.set()
        raise StoreError("the network is gone")

    scorer, _ = slow_scorer(pack, lost)
    with pytest.raises(DeviceLost, match="illegal memory access"):
        list(Lanes(2, scorer, Activity()).scored(ready_photos(4, fail), Budget(MANY, 8)))
