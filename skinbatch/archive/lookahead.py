"""Work done ahead in threads, handed out in order, and never too much of it at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def ahead(
    items: Iterable[In],
    work: Callable[[In], Out],
    threads: int,
    *,
    budget: int | None = None,
    cost: Callable[[In], int] = lambda _: 0,
    at_once: Callable[[In], bool] = lambda _: False,
) -> Iterator[tuple[In, Out]]:
    """(item, work(item)) in the order of `items`.

    At most `4 * threads` items wait or run, and no new one starts while those cost `budget` or more together. Items that
    are `at_once` are too little work for a thread. An exception of `work` is raised where its item would come. Leaving
    the iteration early cancels what has not begun.
    """
    waiting: deque[tuple[In, Future[Out], int]] = deque()
    spent = 0
    source = iter(items)
    more = True
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    try:
        while True:
            while more and len(waiting) < 4 * threads and (budget is None or spent < budget):
                try:
                    item = next(source)
                except StopIteration:
                    more = False
                    break
                price = cost(item)
                spent += price
                waiting.append((item, _done(work, item) if at_once(item) else pool.submit(work, item), price))
            if not waiting:
                return
            item, future, price = waiting.popleft()
            done = future.result()
            del future
            spent -= price
            yield item, done
            del done
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _done(work: Callable[[In], Out], item: In) -> Future[Out]:
    future: Future[Out] = Future()
    try:
        future.set_result(work(item))
    except Exception as e:
        future.set_exception(e)
    return future
