"""Seeds belong to a purpose."""

from __future__ import annotations

import numpy as np
import torch

from zk0.seeding import derive_seed, numpy_rng, seeded, torch_rng


def test_seed_of_a_purpose_never_changes() -> None:
    """Other values would make every earlier run unrepeatable."""
    assert derive_seed(1, "noise", 3) == 3448816294978132165


def test_seeds_differ_by_run_purpose_and_order() -> None:
    seeds = [
        derive_seed(1, "batch", 0, 1),
        derive_seed(2, "batch", 0, 1),
        derive_seed(1, "flow", 0, 1),
        derive_seed(1, "batch", 1, 0),
        derive_seed(1, "batch", 0, 11),
        derive_seed(1, "batch", 0),
    ]

    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_repeat_themselves() -> None:
    assert np.array_equal(numpy_rng(1, "a").random(5), numpy_rng(1, "a").random(5))
    assert torch.equal(torch.rand(5, generator=torch_rng(1, "a")), torch.rand(5, generator=torch_rng(1, "a")))
    assert not np.array_equal(numpy_rng(1, "a").random(5), numpy_rng(1, "b").random(5))


def test_seeded_block_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    with seeded(9):
        first = torch.rand(3)
    after = torch.rand(3)
    with seeded(9):
        again = torch.rand(3)

    assert torch.equal(after, expected)
    assert torch.equal(first, again)
