"""The same work on several items at once, in processes that share this one's memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from zk0.errors import StageError
from zk0.runtime_env import begin_child, end_children, may_fork

_make: Callable[[Any], Any]


def each[T, R](make: Callable[[T], R], items: Sequence[T], processes: int) -> Iterator[tuple[int, R]]:
    """Call a function with every item; gives results with the items' numbers, each as it is there.

    A rollout is many small steps, most of which use one core: as many processes of one thread each are faster than one
    that has all the threads. They are forks, begun by this call, so that a model is in memory once. What would not
    survive a fork is done in this process, item by item and with its threads: work on a GPU, or after this process has
    rendered or begun other threads.

    Args:
        make: What to call.
        items: With what.
        processes: How many at a time.

    Raises:
        StageError: A process was lost. What goes wrong in one is raised as it is there.
    """
    if processes == 1 or len(items) == 1 or not may_fork():
        return ((number, make(item)) for number, item in enumerate(items))
    global _make
    _make = make
    pool = ProcessPoolExecutor(min(processes, len(items)), multiprocessing.get_context("fork"), begin_child)
    return _results(pool, {pool.submit(_call, item): number for number, item in enumerate(items)})


def _results[R](pool: ProcessPoolExecutor, asked: dict[Future[R], int]) -> Iterator[tuple[int, R]]:
    try:
        for future in as_completed(asked):
            yield asked[future], future.result()
    except BrokenProcessPool as error:
        raise StageError("a process that judged was lost, perhaps for want of memory: set threads lower") from error
    except BaseException:
        end_children()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _call(item: Any) -> Any:
    return _make(item)
