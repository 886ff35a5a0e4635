from __future__ import annotations

import subprocess
import sys

import pytest

from zk0.measuring.timing import Spread, alternated, seconds_of


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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process shares")
def test_what_a_process_shares_is_not_its_own() -> None:
    """In a new process: one that has freed much takes what it needs from there."""
    code = """
import mmap, time
from zk0.measuring.timing import PrivatePeak, private_bytes
size, chunk, before = 64_000_000, bytes(1_000_000), private_bytes()
with PrivatePeak() as peak, mmap.mmap(-1, size) as shared:
    for _ in range(64):
        shared.write(chunk)
    print((private_bytes() - before) / size)
    held = bytearray(b"1" * size)
    time.sleep(0.5)  # many looks
    del held
print((peak.most - before) / size, (private_bytes() - before) / size)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    with_shared, most, after = map(float, done.stdout.split())
    assert with_shared < 0.5 and after < 0.5
    assert most > 0.9
