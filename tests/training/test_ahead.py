"""Work done ahead by another thread."""

from __future__ import annotations

import threading

import pytest

from zk0.training.local import ahead


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("depth", [1, 2, 10])
def test_everything_in_order(count: int, depth: int) -> None:
    with ahead(lambda number: number * number, count, depth) as squares:
        assert list(squares) == [number * number for number in range(count)]


def test_made_by_one_other_thread_before_it_is_asked_for() -> None:
    made, second = [], threading.Event()

    def make(number: int) -> str:
        made.append(number)
        if number == 1:
            second.set()
        return threading.current_thread().name

    with ahead(make, 5, depth=2) as names:
        first = next(names)
        assert second.wait(timeout=30)
        assert {first, *names} == {first} != {threading.current_thread().name}
    assert made == [0, 1, 2, 3, 4]


def test_error_comes_where_its_result_is_asked_for() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise LookupError("frame 2 cannot be read")
        return number

    seen = []
    with pytest.raises(LookupError, match="frame 2"), ahead(make, 5) as numbers:
        for number in numbers:
            seen.append(number)

    assert seen == [0, 1]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_leaving_early_ends_the_thread(interruption: type[BaseException]) -> None:
    made = []
    with pytest.raises(interruption), ahead(made.append, 1000) as results:
        next(results)
        raise interruption

    assert len(made) < 1000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("zk0-ahead")]
