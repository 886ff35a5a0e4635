"""Robust strategies against a reader's arithmetic, Flower's own, and sites that lie."""

from __future__ import annotations

import itertools
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import flwr.serverapp.strategy as flower
import pytest
import torch
from flower_oracle import aggregate

from zk0.errors import StageError
from zk0.federation.aggregation import Aggregator
from zk0.federation.robust import Krum, Median, TrimmedMean, sort_rows
from zk0.policy.trainable import PIECE, TensorMismatch, Tensors

START = {"w": torch.tensor([1.0, 10.0]), "b": torch.tensor(-1.0)}
Make = Callable[[Tensors, Path], Aggregator]
MAKERS: dict[str, Make] = {
    "median": Median,
    "trimmed-mean": lambda start, folder: TrimmedMean(start, folder, share=0.25),
    "krum": lambda start, folder: Krum(start, folder, byzantine=1),
    "multi-krum": lambda start, folder: Krum(start, folder, byzantine=1, several=True),
}
each = pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))


def delta(first: float, second: float, bias: float) -> Tensors:
    return {"w": torch.tensor([float(first), float(second)]), "b": torch.tensor(float(bias))}


def combined(aggregator: Aggregator, deltas: list[Tensors]) -> Tensors:
    with aggregator:
        for update in deltas:
            aggregator.fold(update, weight=1.0)
        return aggregator.finish()


def random_deltas(sites: int, start: Tensors = START) -> list[Tensors]:
    rng = torch.Generator().manual_seed(sites)
    return [{n: torch.randn(t.shape, generator=rng) for n, t in start.items()} for _ in range(sites)]


# -- arithmetic ---------------------------------------------------------------------------------


def test_median_of_an_odd_and_an_even_number(tmp_path: Path) -> None:
    three = [delta(1, 9, 5), delta(2, -9, 5), delta(1000, 0, 7)]

    odd = combined(Median(START, tmp_path), three)
    even = combined(Median(START, tmp_path), [*three, delta(4, 2, 6)])

    assert odd["w"].tolist() == [2.0, 0.0] and odd["b"].item() == 5.0
    assert even["w"].tolist() == [3.0, 1.0] and even["b"].item() == 5.5


def test_trimmed_mean_leaves_out_both_ends_of_each_value(tmp_path: Path) -> None:
    deltas = [delta(1, 9, 0), delta(2, -9, 0), delta(1000, 0, 0), delta(4, 2, 8)]

    result = combined(TrimmedMean(START, tmp_path, share=0.25), deltas)

    assert result["w"].tolist() == [3.0, 1.0] and result["b"].item() == 0.0


def test_trimmed_mean_of_share_zero_is_the_mean(tmp_path: Path) -> None:
    assert combined(TrimmedMean(START, tmp_path, share=0.0), [delta(1, 2, 3), delta(3, 4, 5)])["b"].item() == 4.0


def test_krum_takes_the_update_in_the_thick_of_the_others(tmp_path: Path) -> None:
    """Of five with one liar each is judged by its two nearest; the middle one of three neighbours wins."""
    krum = Krum(START, tmp_path, byzantine=1)

    result = combined(krum, [delta(100, 0, 0), delta(1, 0, 0), delta(2, 0, 0), delta(3, 0, 0), delta(5, 0, 0)])

    assert krum.chosen == [2]
    assert result["w"].tolist() == [2.0, 0.0]


def test_multi_krum_is_the_mean_of_all_but_the_farthest(tmp_path: Path) -> None:
    krum = Krum(START, tmp_path, byzantine=1, several=True)

    result = combined(krum, [delta(100, 0, 0), delta(1, 0, 2), delta(2, 0, 2), delta(3, 0, 2), delta(6, 0, 2)])

    assert krum.chosen == [1, 2, 3, 4]
    assert result["w"].tolist() == [3.0, 0.0] and result["b"].item() == 2.0


def test_of_equal_scores_the_first_wins(tmp_path: Path) -> None:
    krum = Krum(START, tmp_path, byzantine=1)
    combined(krum, [delta(1, 0, 0)] * 5)

    assert krum.chosen == [0]


# -- beside Flower ------------------------------------------------------------------------------


@pytest.mark.parametrize("sites", [3, 4, 5, 8, 9])
def test_median_is_flowers(tmp_path: Path, sites: int) -> None:
    check(combined(Median(START, tmp_path), random_deltas(sites)), flower.FedMedian(), sites)


@pytest.mark.parametrize(("sites", "share"), [(4, 0.25), (5, 0.2), (5, 0.4), (9, 0.25), (10, 0.3)])
def test_trimmed_mean_is_flowers(tmp_path: Path, sites: int, share: float) -> None:
    result = combined(TrimmedMean(START, tmp_path, share), random_deltas(sites))
    check(result, flower.FedTrimmedAvg(beta=share), sites)


@pytest.mark.parametrize(("sites", "byzantine"), [(3, 0), (5, 1), (6, 1), (9, 3), (12, 2)])
def test_krum_is_flowers(tmp_path: Path, sites: int, byzantine: int) -> None:
    result = combined(Krum(START, tmp_path, byzantine), random_deltas(sites))
    check(result, flower.Krum(num_malicious_nodes=byzantine), sites)


@pytest.mark.parametrize(("sites", "byzantine"), [(3, 0), (5, 1), (6, 1), (9, 3), (12, 2)])
def test_multi_krum_is_flowers(tmp_path: Path, sites: int, byzantine: int) -> None:
    result = combined(Krum(START, tmp_path, byzantine, several=True), random_deltas(sites))
    oracle = flower.MultiKrum(num_malicious_nodes=byzantine, num_nodes_to_select=sites - byzantine)
    check(result, oracle, sites)


def check(ours: Tensors, strategy: flower.FedAvg, sites: int) -> None:
    """Flower combines models, we combine updates: the same, since all of these move with the origin."""
    other = aggregate(strategy, 1, START, random_deltas(sites))
    for name, tensor in START.items():
        torch.testing.assert_close(tensor + ours[name], other[name].float(), rtol=1e-5, atol=1e-6)


# -- sites that lie -----------------------------------------------------------------------------


@each
@pytest.mark.parametrize("lie", [1e6, -1e6, 1e19, 1e30])
def test_one_liar_of_six_moves_nothing_beyond_the_honest(make: Make, tmp_path: Path, lie: float) -> None:
    """Far larger values must not blur the distances between honest updates, nor overflow."""
    honest = [delta(1 + 0.01 * i, 2 - 0.01 * i, 0.01 * i) for i in range(5)]

    result = combined(make(START, tmp_path), [*honest[:2], delta(lie, lie, lie), *honest[2:]])

    for name, tensor in result.items():
        values = torch.stack([update[name] for update in honest])
        assert (tensor >= values.amin(0) - 1e-6).all() and (tensor <= values.amax(0) + 1e-6).all()


def test_near_copies_are_told_apart(tmp_path: Path) -> None:
    """Updates that differ in the sixth digit only: their inner products differ beyond float32's."""
    common = torch.randn(5000, generator=torch.Generator().manual_seed(1))
    offsets = [0.0, 1e-6, 2e-6, 3e-6, 5e-6, 9e-6]
    deltas = [{"w": common + offset * torch.ones(5000)} for offset in offsets]
    exact = torch.stack([d["w"].double() for d in deltas])
    distances = (exact[:, None] - exact[None]).square().sum(-1).sort(dim=1).values

    krum = Krum({"w": common}, tmp_path, byzantine=1)
    combined(krum, deltas)

    assert krum.chosen == [int(distances[:, 1:4].sum(1).argmin())]


# -- owners who differ --------------------------------------------------------------------------


def owners(number: int, lone: float = 1.5) -> list[Tensors]:
    """A round's updates of six owners who share tasks by twos and of one whose task nobody has, the last one.

    All have something in common; a task's part is of the same size, but for the lone one's, which is larger.
    """
    rng = torch.Generator().manual_seed(number)
    common, *tasks = torch.randn(5, 2000, generator=rng)
    parts = [tasks[0], tasks[0], tasks[1], tasks[1], tasks[2], tasks[2], lone * tasks[3]]
    return [{"w": common + part + torch.randn(2000, generator=rng)} for part in parts]


def left_out(updates: list[Tensors], folder: Path, margin: float) -> list[int]:
    """Who has no part in a round by Multi-Krum that bears one liar."""
    krum = Krum({"w": torch.zeros(2000)}, folder, byzantine=1, several=True, margin=margin)
    result = combined(krum, updates)
    expected = torch.stack([updates[place]["w"] for place in krum.chosen]).mean(0)
    torch.testing.assert_close(result["w"], expected)
    return [place for place in range(len(updates)) if place not in krum.chosen]


def test_a_lone_owner_is_left_out_round_after_round_unless_there_is_a_margin(tmp_path: Path) -> None:
    rounds = [owners(number) for number in range(10)]

    assert [left_out(updates, tmp_path, margin=0.0) for updates in rounds] == [[6]] * 10
    assert [left_out(updates, tmp_path, margin=2.0) for updates in rounds] == [[]] * 10


@pytest.mark.parametrize("factor", [-10.0, -1.0, 10.0])
def test_with_a_margin_one_liar_is_still_left_out_and_the_lone_owner_is_not(tmp_path: Path, factor: float) -> None:
    for number in range(10):
        updates = owners(number)
        updates[2] = {"w": factor * updates[2]["w"]}

        assert left_out(updates, tmp_path, margin=2.0) == [2]


def test_a_margin_never_leaves_out_more_than_the_liars_that_are_borne(tmp_path: Path) -> None:
    updates = owners(1)
    updates[0], updates[3] = {"w": 10 * updates[0]["w"]}, {"w": -20 * updates[3]["w"]}

    assert left_out(updates, tmp_path, margin=2.0) == [3]


def test_krum_alone_knows_no_margin(tmp_path: Path) -> None:
    krum = Krum({"w": torch.zeros(2000)}, tmp_path, byzantine=1, margin=2.0)
    combined(krum, owners(1))

    assert len(krum.chosen) == 1


# -- on disk ------------------------------------------------------------------------------------


@each
def test_tensors_larger_than_a_piece(make: Make, tmp_path: Path) -> None:
    start = {"a": torch.zeros(3), "w": torch.zeros(PIECE // 5 + 7, 3), "b": torch.zeros(())}
    deltas = random_deltas(5, start)

    result = combined(make(start, tmp_path), deltas)

    stacks = {name: torch.stack([update[name] for update in deltas]).sort(0).values for name in start}
    if make is MAKERS["krum"]:
        assert any(all(torch.equal(result[name], update[name]) for name in start) for update in deltas)
    elif make is MAKERS["multi-krum"]:
        means = [
            {name: sum(update[name] for update in deltas if update is not far) / 4 for name in start} for far in deltas
        ]
        assert any(all(torch.allclose(result[name], mean[name], atol=1e-6) for name in start) for mean in means)
    elif make is MAKERS["median"]:
        assert all(torch.equal(result[name], stack[2]) for name, stack in stacks.items())
    else:
        for name, stack in stacks.items():
            torch.testing.assert_close(result[name], stack[1:4].mean(0))


@each
def test_nothing_stays_on_disk(make: Make, tmp_path: Path) -> None:
    """Nor is there ever a name: a kill cannot leave anything either."""
    with make(START, tmp_path / "work") as aggregator:
        for update in random_deltas(5):
            aggregator.fold(update, weight=1)
        assert list((tmp_path / "work").iterdir()) == []
    assert list((tmp_path / "work").iterdir()) == []


@each
def test_finished_aggregator_begins_anew(make: Make, tmp_path: Path) -> None:
    with make(START, tmp_path) as aggregator:
        for value in (1, 7):
            for _ in range(5):
                aggregator.fold(delta(value, value, value), weight=1)
            assert aggregator.finish()["w"].tolist() == [value, value]


@each
def test_half_precision_updates_are_combined_in_float32(make: Make, tmp_path: Path) -> None:
    start = {"w": torch.zeros(1, dtype=torch.float16)}

    result = combined(make(start, tmp_path), [{"w": torch.tensor([0.5], dtype=torch.float16)}] * 5)

    assert result["w"].dtype == torch.float32 and result["w"].item() == 0.5


@each
def test_full_disk_is_told_before_anything_is_written(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregator = make(START, tmp_path)
    aggregator.fold(delta(1, 1, 1), weight=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=11))

    with pytest.raises(StageError, match=r"update 2 of this round needs 0.00 GB on disk, but .* 0.00 GB free"):
        aggregator.fold(delta(1, 1, 1), weight=1)


def test_disk_that_fills_while_an_update_is_written(tmp_path: Path) -> None:
    """A limit on the size of this process's files stands for the disk's: the write itself fails."""
    start = {"w": torch.zeros(100_000)}
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, before[1]))
        with Median(start, tmp_path) as median:
            median.fold(start, weight=1)
            with pytest.raises(StageError, match="update 2 of this round"):
                median.fold(start, weight=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


# -- bad input ----------------------------------------------------------------------------------


@each
def test_update_that_does_not_fit_is_left_out(make: Make, tmp_path: Path) -> None:
    with make(START, tmp_path) as aggregator:
        for _ in range(5):
            aggregator.fold(delta(1, 1, 1), weight=1)
        with pytest.raises(TensorMismatch, match="tensor 'w' has 1 non-finite values of 2"):
            aggregator.fold(delta(float("nan"), 1, 1), weight=1)
        with pytest.raises(ValueError, match="weight must be above 0"):
            aggregator.fold(delta(9, 9, 9), weight=0)

        assert aggregator.finish()["w"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "sites", "said"),
    [
        ("median", 2, "2 updates are too few for this strategy: it needs 3"),
        ("median", 0, "0 updates are too few"),
        ("trimmed-mean", 3, r"3 updates are too few .* needs 4, since of fewer federation.trimmed_share 0.25 leaves"),
        ("krum", 4, r"4 updates are too few .* needs 5, since to bear federation.byzantine 1"),
    ],
)
def test_too_few_updates(tmp_path: Path, name: str, sites: int, said: str) -> None:
    with MAKERS[name](START, tmp_path) as aggregator:
        for _ in range(sites):
            aggregator.fold(delta(1, 1, 1), weight=1)
        with pytest.raises(StageError, match=said):
            aggregator.finish()


# -- sorting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sites", range(1, 13))
def test_network_sorts_every_order_of_zeros_and_ones(sites: int) -> None:
    """Then it sorts everything: Knuth, volume 3, theorem 5.3.4Z."""
    columns = torch.tensor(list(itertools.product([0.0, 1.0], repeat=sites))).T.contiguous()
    expected = columns.sort(dim=0).values

    sort_rows(columns)

    assert torch.equal(columns, expected)


@pytest.mark.parametrize("sites", [17, 33, 64])
def test_network_sorts_many_sites(sites: int) -> None:
    rows = torch.randn(sites, 500, generator=torch.Generator().manual_seed(sites))
    expected = rows.sort(dim=0).values

    sort_rows(rows)

    assert torch.equal(rows, expected)
