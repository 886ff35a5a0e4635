"""Episodes are dealt out completely, to one side only, and the same way each time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from zk0.data.manifest import hold_out, partition
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
    assert sorted(len(part) for part in split("equal", sites=3)) == [13, 13, 14]


def test_equal_parts_go_on_where_they_were_when_a_dataset_grows() -> None:
    params = PartitionParams(scheme="equal", sites=3)

    def dealt(count: int) -> dict[int, int]:
        parts = partition(EPISODES[:count], TASKS[:count], params, np.random.default_rng(1))
        return {episode: site for site, part in enumerate(parts) for episode in part}

    assert all(dealt(count).items() <= dealt(40).items() for count in range(6, 40))


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
        ("equal", 30, r"partition \d+ would get 1 of 40 episodes and needs two"),
        ("sizes", 20, r"would get [01] of 40 episodes"),
    ],
)
def test_site_without_two_episodes_is_refused(scheme: str, sites: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        split(scheme, sites=sites, alpha=0.2)


def motions(count: int, of: int = 0) -> dict[int, str]:
    return {number: f"dataset {of}, episode {number}" for number in range(count)}


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_share_is_held_out_on_average_and_no_side_is_empty(share: float) -> None:
    counts = []
    for of in range(200):
        for count in (2, 3, 30):
            train, held_out = hold_out(motions(count, of), share, seed=1)
            assert train and held_out and sorted(train + held_out) == list(range(count))
            assert train == sorted(train) and held_out == sorted(held_out)
        counts.append(len(held_out))

    assert np.mean(counts) == pytest.approx(max(1.0, 29 * share), abs=0.7)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.9])
def test_nothing_trained_on_is_ever_held_out_while_a_dataset_grows(share: float) -> None:
    for of in range(60):
        trained: set[int] = set()
        for count in range(2, 40):
            train, held_out = hold_out(motions(count, of), share, seed=1)
            assert trained.isdisjoint(held_out)
            trained |= set(train)


def test_what_is_left_out_or_deleted_moves_no_other() -> None:
    """Deleted ones also give their numbers to those that follow."""
    train, held_out = hold_out(motions(40), 0.2, seed=1)
    gone = {train[3], held_out[0]}
    rest = [motion for number, motion in motions(40).items() if number not in gone]
    sides = {motion: number in held_out for number, motion in motions(40).items()}

    left = hold_out(motions(40), 0.2, seed=1, left_out=gone)
    _, deleted = hold_out(dict(enumerate(rest)), 0.2, seed=1)

    assert left == ([e for e in train if e not in gone], [e for e in held_out if e not in gone])
    assert {motion: number in deleted for number, motion in enumerate(rest)}.items() <= sides.items()


def test_side_that_is_left_out_as_a_whole_is_named() -> None:
    train, held_out = hold_out(motions(10), 0.2, seed=1)

    with pytest.raises(DataError, match=r"leaves no held-out episode of \[.*\]; keep one of them, or record more"):
        hold_out(motions(10), 0.2, seed=1, left_out=held_out)
    with pytest.raises(DataError, match=r"leaves no training episode of"):
        hold_out(motions(10), 0.2, seed=1, left_out=train)


def test_copies_of_an_episode_lie_on_one_side() -> None:
    for of in range(40):
        twice = {number: f"{of}, {number % 5}" for number in range(10)}
        train, held_out = hold_out(twice, 0.3, seed=1)
        assert {number % 5 for number in train}.isdisjoint(number % 5 for number in held_out)


def test_another_seed_holds_out_others() -> None:
    assert hold_out(motions(40), 0.2, seed=1) == hold_out(motions(40), 0.2, seed=1)
    assert hold_out(motions(40), 0.2, seed=1) != hold_out(motions(40), 0.2, seed=2)


def test_what_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"1 episode cannot be split .* record at least two"):
        hold_out({5: "a"}, 0.5, seed=1)
    with pytest.raises(DataError, match=r"all 2 episodes are the same one"):
        hold_out({0: "a", 1: "a"}, 0.5, seed=1)
