"""Test that photos are decoded ahead of the models: in order, within a budget, and without deadlocks."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from skinbatch.config import DecodeSettings
from skinbatch.errors import StoreError
from skinbatch.scoring.ahead import decoded_ahead
from skinbatch.scoring.budget import Budget
from skinbatch.scoring.seconds import Seconds
from skinbatch.types import Fetched, ImageRef, Status
from tests.faces import face, jpeg

PHOTO = jpeg(face())
MANY = 1 << 30


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def fetched(count: int, data: bytes | None = PHOTO) -> Iterator[Fetched]:
    for n in range(count):
        yield Fetched(ImageRef(f"{n}", f"/p/{n}"), data)


def test_photos_come_in_their_order_with_the_hash_of_their_bytes(pool: ThreadPoolExecutor) -> None:
    ready = list(
        decoded_ahead(
            fetched(30), DecodeSettings(), pool, Budget(MANY, 8), lambda f, sha: True, lambda: None
        )
    )
    assert [r.fetched.ref.image_id for r in ready] == [str(n) for n in range(30)]
    assert all(r.rgb is not None and r.fetched.data is None for r in ready)
    assert len({r.sha256 for r in ready}) == 1


def test_a_budget_smaller_than_one_photo_slows_down_but_does_not_stop(
    pool: ThreadPoolExecutor,
) -> None:
    ready = decoded_ahead(
        fetched(20), DecodeSettings(), pool, Budget(1, 8), lambda f, sha: True, lambda: None
    )
    assert sum(r.rgb is not None for r in ready) == 20


def test_no_more_photos_than_allowed_are_made_ahead(pool: ThreadPoolExecutor) -> None:
    taken = 0

    def counting() -> Iterator[Fetched]:
        nonlocal taken
        for photo in fetched(100):
            taken += 1
            yield photo

    ready = decoded_ahead(
        counting(), DecodeSettings(), pool, Budget(MANY, 5), lambda f, sha: True, lambda: None
    )
    next(ready)
    settled = threading.Event()
    for _ in range(100):
        before = taken
        settled.wait(0.02)
        if before == taken:
            break
    assert taken <= 5 + 3  # waiting in the queue, being put, and taken out
    ready.close()


def test_files_that_wait_to_be_decoded_are_bounded_by_their_bytes(pool: ThreadPoolExecutor) -> None:
    large = bytes(1 << 20)
    held: list[int] = []
    taken = threading.Semaphore(0)
    decoding = threading.Event()

    def counting() -> Iterator[Fetched]:
        for photo in fetched(40, large):
            held.append(len(large))
            taken.release()
            yield photo

    def waits(_: Fetched, __: str) -> bool:
        return decoding.wait(30)

    ready = decoded_ahead(
        counting(), DecodeSettings(), pool, Budget(3 << 20, 32), waits, lambda: None
    )
    out: list[Status] = []
    consumer = threading.Thread(target=lambda: out.extend(r.status for r in ready))
    consumer.start()
    try:
        for _ in range(4):  # three are held, and a fourth waits
            assert taken.acquire(timeout=30)
        assert not taken.acquire(timeout=0.3)
        assert len(held) == 4
    finally:
        decoding.set()
        consumer.join(60)
    assert out == [Status.UNSUPPORTED] * 40


def test_photos_that_are_not_wanted_are_hashed_and_not_decoded(pool: ThreadPoolExecutor) -> None:
    ready = list(
        decoded_ahead(
            fetched(3), DecodeSettings(), pool, Budget(MANY, 4), lambda f, sha: False, lambda: None
        )
    )
    assert all(r.rgb is None and r.status is Status.OK and r.sha256 for r in ready)


def test_a_photo_that_cannot_be_decoded_keeps_its_hash_and_says_why(
    pool: ThreadPoolExecutor,
) -> None:
    (ready,) = decoded_ahead(
        fetched(1, PHOTO[:200]),
        DecodeSettings(),
        pool,
        Budget(MANY, 4),
        lambda f, sha: True,
        lambda: None,
    )
    assert ready.status is Status.TRUNCATED
    assert ready.sha256 is not None
    assert ready.error is not None


def test_what_the_store_raises_is_raised_after_the_photos_before_it(
    pool: ThreadPoolExecutor,
) -> None:
    def breaking() -> Iterator[Fetched]:
        yield from fetched(3)
        raise StoreError("the network is gone")

    ready = decoded_ahead(
        breaking(), DecodeSettings(), pool, Budget(MANY, 4), lambda f, sha: True, lambda: None
    )
    assert [next(ready).fetched.ref.image_id for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(StoreError, match="the network is gone"):
        next(ready)


def test_closing_early_ends_the_feeding_thread(pool: ThreadPoolExecutor) -> None:
    ready = decoded_ahead(
        fetched(1000), DecodeSettings(), pool, Budget(1, 4), lambda f, sha: True, lambda: None
    )
    next(ready)
    start = time.monotonic()
    ready.close()
    assert time.monotonic() - start < 30
    assert not [t for t in threading.enumerate() if t.name == "fetch"]


def test_after_closing_nothing_is_decoded_any_more(pool: ThreadPoolExecutor) -> None:
    decoding = threading.Barrier(5)
    running: list[str] = []

    def slow(photo: Fetched, _: str) -> bool:
        if photo.ref.image_id == "0":
            return True
        running.append(photo.ref.image_id)
        if photo.ref.image_id in tuple("1234"):
            decoding.wait(30)
        closing.wait(30)
        threading.Event().wait(0.5)
        running.remove(photo.ref.image_id)
        return True

    def reader() -> Iterator[Fetched]:
        for n, photo in enumerate(fetched(20)):
            if n == 6:
                queued.set()
            yield photo

    closing, queued = threading.Event(), threading.Event()
    ready = decoded_ahead(reader(), DecodeSettings(), pool, Budget(MANY, 16), slow, lambda: None)
    next(ready)
    decoding.wait(30)  # the threads are working on four photos
    assert queued.wait(30)  # and more wait for a thread
    closing.set()
    ready.close()
    assert running == []
    assert pool.submit(lambda: "idle").result(1) == "idle"


def test_waiting_for_bytes_and_decoding_are_timed_apart(pool: ThreadPoolExecutor) -> None:
    def slow() -> Iterator[Fetched]:
        for n in range(3):
            time.sleep(0.05)
            yield Fetched(ImageRef(f"{n}", f"/p/{n}"), PHOTO)

    seconds = Seconds()
    budget = Budget(MANY, 16)
    ready = [
        *decoded_ahead(
            slow(),
            DecodeSettings(),
            pool,
            budget,
            lambda f, sha: True,
            lambda: None,
            seconds=seconds,
        )
    ]
    assert len(ready) == 3
    assert seconds.all().keys() == {"fetch", "decode"}
    assert seconds.all()["fetch"] >= 0.15
    assert seconds.all()["decode"] > 0
