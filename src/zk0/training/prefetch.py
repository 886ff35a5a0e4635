"""Make what the next steps need while this one computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def ahead[T](make: Callable[[int], T], count: int, depth: int = 2) -> Iterator[Iterator[T]]:
    """``make(0)`` to ``make(count - 1)``, in this order, made by one other thread a few ahead.

    What ``make`` raises is raised where its result is asked for. Leaving the block, by an error or
    by Ctrl-C too, drops what was not begun and waits for the one that is being made.

    Args:
        make: Called in the other thread, one call at a time, so it may own a generator.
        count: How many.
        depth: How many are made before they are asked for.

    >>> with ahead(lambda number: number * number, 4) as squares:
    ...     list(squares)
    [0, 1, 4, 9]
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="zk0-ahead")
    waiting: deque[Future[T]] = deque(pool.submit(make, number) for number in range(min(depth, count)))

    def results() -> Iterator[T]:
        for following in range(len(waiting), count + len(waiting)):
            found = waiting.popleft().result()
            if following < count:
                waiting.append(pool.submit(make, following))
            yield found

    try:
        yield results()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
