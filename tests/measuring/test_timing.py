from __future__ import annotations

import mmap
import subprocess
import sys

import pytest

from zk0.measuring.timing import PrivatePeak, Spread, alternated, private_bytes, seconds_of


def test_spread_is_of_the_middle_and_both_ends() -> None:
    assert Spread.of([5.0, 1.0, 2.0]) == Spread(2.0, 1.0, 5.0, 3)
    with pytest.raises(ValueError, match="no repeat"):
        Spread.of([])


def test_warm_up_does_not_count() -> None:
    calls: list[int] = []
    assert len(seconds_of(calls.append, 2, warm_up=3)) == 2
    assert calls == [1, 2, 3, 1, 2]


def test_works_take_turns() -> None:
    order: list[str] = []
    works = {"a": lambda n: order.append(f"a{n}"), "b": lambda n: order.append(f"b{n}")}

    seconds = alternated(works, 2, warm_up=0)

    assert order == ["a1", "b1", "a2", "b2"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is the kernel's")
def test_peak_is_what_was_held_and_can_begin_anew() -> None:
    """In a process of its own, whose memory nobody else changes."""
    code = """
import numpy as np
from zk0.measuring.timing import peak_bytes, reset_peak, resident_bytes
before = resident_bytes()
held = np.ones(25_000_000)
assert peak_bytes() - before > 190e6
del held
reset_peak()
assert peak_bytes() - before < 100e6, peak_bytes() - before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process shares")
def test_what_a_process_shares_is_not_its_own() -> None:
    size, chunk = 64_000_000, bytes(1_000_000)
    before = private_bytes()

    with PrivatePeak() as peak, mmap.mmap(-1, size) as shared:
        for _ in range(size // len(chunk)):
            shared.write(chunk)
        while_shared = private_bytes()
        held = bytearray(size)
        held[:: mmap.PAGESIZE] = b"1" * len(held[:: mmap.PAGESIZE])
        del held

    assert while_shared - before < size / 2
    assert 0.9 * size < peak.most - before < 1.5 * size
