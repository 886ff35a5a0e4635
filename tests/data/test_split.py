"""Episodes are dealt out completely, to one side only, and the same way each time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from zk0.data.split import hold_out, partition
from zk0.errors import DataError
from zk0.params import PartitionParams

EPISODES = list(range(100, 140))
TASKS = [number % 4 for number in range(40)]


def split(scheme: str, sites: int = 4, alpha: float = 5.0, seed: int = 1) -> list[list[int]]:
    params = PartitionParams.model_validate({"scheme": scheme, "sites": sites, "alpha": alpha})
    return partition(EPISODES, TASKS, params, np.random.default_rng(seed))


@pytest.mark.parametrize("scheme", ["equal", "sizes", "tasks", "by-task"])
def test_every_episode_goes_to_one_site(scheme: str) -> None:
    parts = split(scheme)

    assert len(parts) == 4
    assert sorted(episode for part in parts for episode in part) == EPISODES
    assert all(part == sorted(part) and len(part) >= 2 for part in parts)


@pytest.mark.parametrize("scheme", ["equal", "sizes", "tasks", "by-task"])
def test_same_seed_same_parts(scheme: str) -> None:
    assert split(scheme) == split(scheme)
    if scheme != "by-task":  # which leaves nothing to chance
        assert split(scheme) != split(scheme, seed=2)


def test_equal_parts_differ_by_one_episode_at_most() -> None:
    assert [len(part) for part in split("equal", sites=3)] == [14, 13, 13]


def test_sizes_grow_apart_as_alpha_falls() -> None:
    def spread(alpha: float) -> float:
        spreads = []
        for seed in range(40):
            try:
                spreads.append(np.ptp([len(part) for part in split("sizes", sites=3, alpha=alpha, seed=seed)]))
            except DataError:
                continue
        return float(np.mean(spreads))

    assert spread(1.0) > spread(100.0) + 3


def test_tasks_are_spread_unevenly_when_alpha_is_small() -> None:
    def largest_shares(alpha: float) -> float:
        for seed in range(50):
            try:
                parts = split("tasks", sites=3, alpha=alpha, seed=seed)
            except DataError:
                continue
            counts = [Counter(TASKS[episode - 100] for episode in part) for part in parts]
            return float(np.mean([max(count[task] for count in counts) / 10 for task in range(4)]))
        raise AssertionError("no seed gave every site two episodes")

    assert largest_shares(0.2) > 0.6 > largest_shares(100.0)


def test_each_task_goes_to_one_site() -> None:
    parts = split("by-task", sites=2)

    tasks = [{TASKS[episode - 100] for episode in part} for part in parts]
    assert tasks == [{0, 1}, {2, 3}]


@pytest.mark.parametrize(
    ("scheme", "sites", "said"),
    [
        ("by-task", 5, "partition 4 would get 0 of 40 episodes and needs two; lower data.partition.sites"),
        ("equal", 30, "partition 10 would get 1 of 40 episodes and needs two"),
        ("sizes", 20, r"would get [01] of 40 episodes"),
    ],
)
def test_site_without_two_episodes_is_refused(scheme: str, sites: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        split(scheme, sites=sites, alpha=0.2)


@pytest.mark.parametrize(
    ("count", "share", "held_out"), [(10, 0.2, 2), (10, 0.01, 1), (10, 0.99, 9), (2, 0.5, 1), (2, 0.9, 1), (7, 0.25, 2)]
)
def test_share_is_held_out_but_at_least_one_stays_on_each_side(count: int, share: float, held_out: int) -> None:
    episodes = EPISODES[:count]

    train, kept = hold_out(episodes, share, np.random.default_rng(1))

    assert len(kept) == held_out
    assert sorted(train + kept) == episodes
    assert train == sorted(train) and kept == sorted(kept)


def test_held_out_episodes_are_drawn_by_the_seed() -> None:
    def draw(seed: int) -> Any:
        return hold_out(EPISODES, 0.2, np.random.default_rng(seed))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_single_episode_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"1 episode cannot be split .* record at least two"):
        hold_out([5], 0.5, np.random.default_rng(1))
