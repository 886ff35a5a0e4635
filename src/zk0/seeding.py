"""Seeds that belong to what they are for, not to a process.

Every random draw of a run comes from a generator keyed by the run's seed, a purpose, and the
partition or round it serves. So a resumed run, another order of sites or another number of
processes draws the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import xxhash

if TYPE_CHECKING:  # data is prepared without it
    import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose.

    >>> derive_seed(1, "noise", 3) == derive_seed(1, "noise", 3)
    True
    >>> derive_seed(1, "noise", 3) == derive_seed(1, "noise", 4)
    False
    """
    text = "/".join([str(seed), *map(str, purpose)])
    return xxhash.xxh3_64_intdigest(text.encode()) >> 1


def numpy_rng(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy generator for one purpose."""
    return np.random.default_rng(derive_seed(seed, *purpose))


def torch_rng(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU torch generator for one purpose."""
    import torch  # noqa: PLC0415 - slow

    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with torch's global generator seeded, and restore it afterwards."""
    import torch  # noqa: PLC0415 - slow

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
