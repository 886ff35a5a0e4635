"""Ctrl-C in a flow that runs as a command is granted where work can be ended, and only there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tasks import stop


@pytest.fixture(autouse=True)
def _listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stop, "_asked", False)
    before = signal.getsignal(signal.SIGINT)
    stop.listen()
    yield
    signal.signal(signal.SIGINT, before)


def ask() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_what_is_not_to_be_cut_in_two_goes_on_and_the_next_work_is_not_begun() -> None:
    done = []
    ask()
    done.append("written down")

    with pytest.raises(KeyboardInterrupt), stop.stoppable():
        done.append("work")

    assert done == ["written down"]


def test_work_ends_at_once_and_what_cleans_up_after_it_is_left_to_its_end() -> None:
    done = []

    with pytest.raises(KeyboardInterrupt), stop.stoppable():
        try:
            ask()
            done.append("work")
        finally:
            ask()
            done.append("clean")

    assert done == ["clean"]
