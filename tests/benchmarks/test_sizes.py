from __future__ import annotations

import math

from benchmarks.sizes import FULL, shapes_of


def test_full_size_is_what_the_policy_trains() -> None:
    assert sum(math.prod(shape) for shape in shapes_of().values()) == FULL


def test_smaller_sizes_keep_the_number_of_tensors() -> None:
    tenth = shapes_of(FULL // 10)
    assert len(tenth) == len(shapes_of())
    assert abs(sum(math.prod(shape) for shape in tenth.values()) / (FULL / 10) - 1) < 0.02
