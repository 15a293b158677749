"""Work ahead in threads, within a limit, and return results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
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
) -> Generator[tuple[In, Out], None, None]:
    """Yield (item, work(item)) in the order of `items`.

    At most `4 * threads` items wait or run. No new one starts while these cost `budget` or more
    together. Items for which `at_once` is true are too little work for a thread, and are done as
    they come. An exception of `work` is raised in place of its item. Leaving the iteration early
    cancels what has not begun. However the iteration ends, `items` is closed if it is a generator.
    """
    waiting: deque[tuple[In, Callable[[], Out], int]] = deque()
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
                quick = at_once(item)
                if quick and not waiting:
                    yield item, work(item)
                    continue
                price = cost(item)
                spent += price
                waiting.append(
                    (item, _done(work, item) if quick else pool.submit(work, item).result, price)
                )
            if not waiting:
                return
            item, price = waiting[0][0], waiting[0][2]
            done = waiting[0][1]()
            waiting.popleft()
            spent -= price
            yield item, done
            del done
    finally:
        # An error keeps this frame alive by its traceback. A future in the frame would keep the
        # error in turn, and a listing would continue to be read.
        waiting.clear()
        if isinstance(source, Generator):
            source.close()
        pool.shutdown(wait=True, cancel_futures=True)


def _done(work: Callable[[In], Out], item: In) -> Callable[[], Out]:
    """Return the result as a future's `result` would, at a tenth of the cost."""
    try:
        done = work(item)
    except Exception as e:
        error = e

        def fail() -> Out:
            raise error

        return fail
    return lambda: done
