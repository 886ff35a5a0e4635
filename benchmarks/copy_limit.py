"""How fast this machine's memory can copy what a round moves: the limit of anything that moves it."""

from __future__ import annotations

import torch

from zk0.measuring.timing import seconds_of


def copy_seconds(*, total: int, repeats: int, threads: int) -> list[float]:
    """Seconds to copy ``total`` bytes into memory that exists already, in buffers of at most 400 MB.

    Args:
        total: Bytes copied, each read once and written once.
        repeats: Copies that count, after one that warms up.
        threads: Threads of this process.
    """
    torch.set_num_threads(threads)
    size = min(total, 400_000_000)
    source, target = torch.ones(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)

    def copy(_: int) -> None:
        left = total
        while left > 0:
            part = min(left, size)
            target[:part].copy_(source[:part])
            left -= part

    return seconds_of(copy, repeats, warm_up=1)
