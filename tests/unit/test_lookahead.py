"""Test work that is done ahead: in order, with quick items on the way, and errors where they belong."""

import threading
import time
from collections.abc import Iterator

import pytest

from skinbatch.lookahead import ahead


def _slow(item: int) -> int:
    time.sleep(0.002 * (item % 3))
    return -item


@pytest.mark.parametrize("every", [1, 2, 5, 1000])
def test_items_come_in_their_order_whatever_is_quick(every: int) -> None:
    found = list(ahead(range(100), _slow, 4, at_once=lambda item: item % every == 0))
    assert found == [(item, -item) for item in range(100)]


def test_what_is_quick_is_done_as_it_comes_by_who_asks() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        done.append(threading.get_ident())
        return item

    for n, _ in enumerate(ahead(range(10), work, 4, at_once=lambda _: True)):
        assert done == [threading.get_ident()] * (n + 1)


def test_slow_items_behind_a_quick_one_are_begun_before_they_are_asked_for() -> None:
    begun = threading.Event()

    def work(item: int) -> int:
        if item == 3:
            begun.set()
        return item

    found = ahead(range(10), work, 2, at_once=lambda item: item in (0, 2))
    assert [next(found), next(found)] == [(0, 0), (1, 1)]
    assert begun.wait(10)
    assert list(found) == [(item, item) for item in range(2, 10)]


@pytest.mark.parametrize("quick", [(), (7,), (6, 7), tuple(range(20))])
def test_an_error_is_raised_where_its_item_would_come(quick: tuple[int, ...]) -> None:
    def work(item: int) -> int:
        if item == 7:
            raise ValueError("seven")
        return item

    def taken() -> Iterator[int]:
        for item, _ in ahead(range(20), work, 3, at_once=lambda item: item in quick):
            found.append(item)
            yield item

    found: list[int] = []
    with pytest.raises(ValueError, match="seven"):
        list(taken())
    assert found == list(range(7))
