"""The statistics that compare models: by hand, against scipy's, and by simulation."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from scipy import stats

from zk0.evaluation import paired
from zk0.evaluation.outcomes import Outcomes, UnpairedError
from zk0.evaluation.paired import difference, rate, stratified, wilson

RUNS = 400


def outcomes(values: object, seeds: tuple[int, ...] | None = None) -> Outcomes:
    """Of (S, T, N) values; one task and one seed may be left out."""
    array = np.array(values, dtype=float)
    array = array.reshape((1,) * (3 - array.ndim) + array.shape)
    count, tasks, scenes = array.shape
    return Outcomes(array, tuple("abcd"[:tasks]), seeds or tuple(range(count)), tuple(range(100, 100 + scenes)))


def drawn(
    draws: np.random.Generator, rate: float, seed_effect: float, scenes: np.ndarray, seeds: int = 3
) -> tuple[Outcomes, float]:
    """Two tasks; successes decided by latent training seed, scene and chance. Also the true rate."""
    scene_effect = 1.0 if scenes.any() else 0.0
    spread = np.sqrt(1 + seed_effect**2 + scene_effect**2)
    latent = stats.norm.ppf(rate) * spread + seed_effect * draws.normal(size=(seeds, 1, 1)) + scenes
    return outcomes(latent + draws.normal(size=(seeds, 2, scenes.size)) > 0), rate


def test_example_in_the_docs() -> None:
    assert doctest.testmod(paired).failed == 0


def test_two_way_variance_by_hand() -> None:
    """Mean squares 6 (seeds), 24 (scenes), 2 (rest): (6 + 24 - 2) / 6 with (28^2 / 326 -> at most) 2 degrees."""
    found = rate(outcomes([[[1, 2, 6]], [[3, 2, 10]]]))

    reach = stats.t.ppf(0.975, 2) * np.sqrt(28 / 6)
    assert (found.value, found.low, found.high) == pytest.approx((4, 4 - reach, 4 + reach))


def test_one_way_of_measurements_is_the_paired_t_test() -> None:
    draws = np.random.default_rng(3)
    a, b = draws.normal(5.0, 2.0, 12), draws.normal(4.5, 2.0, 12)

    found = difference(outcomes(a), outcomes(b))

    greater, less = (stats.ttest_rel(a, b, alternative=side) for side in ("greater", "less"))
    both = stats.ttest_rel(a, b).confidence_interval()
    assert (found.p_better, found.p_worse) == pytest.approx((greater.pvalue, less.pvalue))
    assert (found.low, found.high) == pytest.approx((both.low, both.high))
    assert found.lower_bound == pytest.approx(greater.confidence_interval().low)
    assert found.upper_bound == pytest.approx(less.confidence_interval().high)


def test_pairs_of_successes_by_hand() -> None:
    """Four wins and one loss in ten scenes; with half a win, half a loss and a tie 3 of 12."""
    a, b = [1, 1, 1, 1, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 0, 0, 0]

    found = difference(outcomes(a), outcomes(b))

    variance = (10 * (5 - 10 * 0.3**2) / 9 + 2 * 10 * 0.3**2 / 12 + 1) / 12**2
    reach = stats.t.ppf(0.975, 9) * np.sqrt(variance)
    assert found.value == pytest.approx(0.3)
    assert (found.low, found.high) == pytest.approx((0.25 - reach, 0.25 + reach))
    assert found.p_better == pytest.approx(stats.t.sf(0.25 / np.sqrt(variance), 9))
    assert found.p_better + found.p_worse == pytest.approx(1.0)


@pytest.mark.parametrize(("wins", "exact"), [(1, 0.5), (3, 0.125), (5, 0.03125)])
def test_few_wins_are_not_taken_for_more_than_they_are(wins: int, exact: float) -> None:
    """Beside McNemar's exact test, whose mid-p is half of it here: about that at least."""
    a = np.zeros(100)
    a[:wins] = 1

    assert difference(outcomes(a), outcomes(np.zeros(100))).p_better > 0.9 * exact / 2


def test_one_task_and_seed_is_nearly_wilsons() -> None:
    values = np.zeros(60)
    values[:24] = 1

    found = rate(outcomes(values))

    low, high = wilson(24, 60)
    assert found.low < low < 0.4 < high < found.high
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.005)


@pytest.mark.parametrize("value", [0, 1])
def test_all_alike_is_not_certain(value: int) -> None:
    found = rate(outcomes(np.full((3, 2, 50), value)))

    low, high = wilson(50 * value, 50)
    assert found.value == value
    assert found.low <= low and found.high >= high
    assert found.high - found.low < 0.1


def test_tasks_that_differ_wholly_are_not_certain() -> None:
    """Always on one task, never on the other: every scene's mean is one half."""
    found = rate(outcomes(np.stack([np.ones((1, 40)), np.zeros((1, 40))], axis=1)))

    assert found.value == 0.5
    assert found.high - found.low > 0.2


def test_equal_outcomes_are_neither_better_nor_worse() -> None:
    same = outcomes(np.random.default_rng(1).random((3, 2, 50)) > 0.5)

    found = difference(same, same)

    assert found.value == 0.0
    assert (found.p_better, found.p_worse) == (0.5, 0.5)
    assert -0.05 < found.low < 0 < found.high < 0.05


def test_measurements_that_never_differ() -> None:
    five, four = outcomes(np.full(6, 5.5)), outcomes(np.full(6, 4.0))

    assert (difference(five, four).p_better, difference(five, four).p_worse) == (0.0, 1.0)
    assert (difference(five, five).p_better, difference(five, five).p_worse) == (1.0, 1.0)


def test_few_training_seeds_cost_what_seeds_decide() -> None:
    """The same 300 outcomes: all scenes of one seed fail, or a third of each seed's."""
    by_seed = np.array([np.ones(100), np.ones(100), np.zeros(100)])[:, None]
    draws = np.random.default_rng(0)
    by_scene = np.stack([draws.permutation(by_seed[:, 0].ravel())[:100] for _ in range(3)])[:, None]

    told, untold = rate(outcomes(by_seed)), rate(outcomes(by_scene))

    assert told.high - told.low > 0.7
    assert untold.high - untold.low < 0.35


@pytest.mark.parametrize(
    ("seed_effect", "scene_effect", "probability"),
    [(0.0, 0.0, 0.8), (0.0, 1.0, 0.8), (0.5, 0.0, 0.6), (0.3, 1.0, 0.9), (0.1, 0.5, 0.97)],
)
def test_intervals_of_rates_cover(seed_effect: float, scene_effect: float, probability: float) -> None:
    draws = np.random.default_rng(11)
    covered = 0
    for _ in range(RUNS):
        found, true = drawn(draws, probability, seed_effect, scene_effect * draws.normal(size=60))
        estimate = rate(found)
        covered += estimate.low <= true <= estimate.high

    assert covered / RUNS > 0.92


@pytest.mark.parametrize("seed_effect", [0.0, 0.3])
def test_differences_are_found_as_often_as_they_should(seed_effect: float) -> None:
    draws = np.random.default_rng(12)
    covered = wrong = right = 0
    for _ in range(RUNS):
        scenes = draws.normal(size=60)
        (a, rate_a), (b, rate_b) = (drawn(draws, rate, seed_effect, scenes) for rate in (0.8, 0.7))
        same, _ = drawn(draws, 0.8, seed_effect, scenes)
        found = difference(a, b)
        covered += found.low <= rate_a - rate_b <= found.high
        right += found.lower_bound <= rate_a - rate_b
        wrong += difference(a, same).p_better < 0.05

    assert covered / RUNS > 0.92
    assert right / RUNS > 0.92
    assert wrong / RUNS < 0.08


def test_base_is_set_against_every_training_seed() -> None:
    a = outcomes(np.random.default_rng(2).random((3, 2, 30)) > 0.3, seeds=(1, 2, 3))
    base = outcomes(np.random.default_rng(3).random((1, 2, 30)) > 0.7, seeds=(0,))

    found = difference(a, base)

    assert found.value == pytest.approx(a.values.mean() - base.values.mean())
    repeated = Outcomes(np.repeat(base.values, 3, axis=0), base.tasks, (1, 2, 3), base.scenes)
    assert found == difference(a, repeated)
    assert difference(base, a).value == pytest.approx(-found.value)


def test_order_does_not_matter() -> None:
    a = outcomes(np.random.default_rng(4).random((3, 2, 20)) > 0.3)
    b = outcomes(np.random.default_rng(5).random((3, 2, 20)) > 0.6)
    turned = b.only(tasks=b.tasks[::-1], scenes=b.scenes[::-1], seeds=b.seeds[::-1])

    assert difference(a, turned) == difference(a, b)


def test_tasks_with_their_own_scenes_weigh_the_same() -> None:
    """Two sites with 4 and 8 held-out episodes: variances add, degrees after Satterthwaite."""
    draws = np.random.default_rng(6)
    one, two = draws.normal(1.0, 1.0, 4), draws.normal(0.0, 2.0, 8)
    pairs = {
        "one": (outcomes(one), outcomes(np.zeros(4))),
        "two": (outcomes(two), outcomes(np.zeros(8))),
    }

    found = stratified(pairs)

    parts = np.array([one.var(ddof=1) / 4, two.var(ddof=1) / 8])
    welch = stats.ttest_ind(one, -two, equal_var=False, alternative="greater")  # (one + two) / 2 has the same score
    assert found.value == pytest.approx((one.mean() + two.mean()) / 2)
    assert found.p_better == pytest.approx(welch.pvalue)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, welch.df) * np.sqrt(parts.sum()) / 2)


def test_outcomes_of_nested_results() -> None:
    found = Outcomes.of({1: {"red": {100: True, 101: False}}, 2: {"red": {101: True, 100: False}}})

    assert found.values.tolist() == [[[1.0, 0.0]], [[0.0, 1.0]]]
    assert (found.tasks, found.seeds, found.scenes, found.binary) == (("red",), (1, 2), (100, 101), True)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({}, "at least one of training seeds"),
        ({1: {}}, "at least one of tasks"),
        ({1: {"red": {}}}, "at least one of scenes"),
        ({1: {"red": {1: 1}}, 2: {"blue": {1: 1}}}, "tasks differ: training seed 2 lacks 'red' and has 'blue' besides"),
        ({1: {"red": {1: 1, 2: 0}}, 2: {"red": {1: 1}}}, "scenes differ: training seed 2, task 'red' lacks 2"),
        ({1: {"red": {7: float("nan")}}}, "task 'red', training seed 1, scene 7 has nan"),
    ],
)
def test_results_that_are_no_grid_are_refused(results: dict[int, dict[str, dict[int, float]]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Outcomes.of(results)


def test_names_that_do_not_fit_the_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(training seeds, tasks, scenes\) = \(1, 1, 3\), got \(1, 1, 2\)"):
        Outcomes(np.zeros((1, 1, 2)), ("a",), (1,), (1, 2, 3))
    with pytest.raises(ValueError, match="scenes must differ"):
        Outcomes(np.zeros((1, 1, 2)), ("a",), (1,), (1, 1))


def test_unpaired_outcomes_are_refused() -> None:
    a = Outcomes(np.zeros((2, 1, 3)), ("red",), (1, 2), (1, 2, 3))

    with pytest.raises(UnpairedError, match="scenes differ: the second lacks 3 and has 4 besides"):
        difference(a, Outcomes(np.zeros((2, 1, 3)), ("red",), (1, 2), (1, 2, 4)))
    with pytest.raises(UnpairedError, match="tasks differ: the second lacks 'red' and has 'blue' besides"):
        difference(a, Outcomes(np.zeros((2, 1, 3)), ("blue",), (1, 2), (1, 2, 3)))
    with pytest.raises(UnpairedError, match="training seeds differ: the second lacks 2 and has 3 besides"):
        difference(a, Outcomes(np.zeros((2, 1, 3)), ("red",), (1, 3), (1, 2, 3)))
    with pytest.raises(UnpairedError, match=r"no outcomes for scene 9; there are 1, 2, 3"):
        a.only(scenes=(1, 9))
    with pytest.raises(UnpairedError, match="no task that both"):
        stratified({})


def test_too_little_to_say_anything_is_refused() -> None:
    one = outcomes([5.5])

    with pytest.raises(ValueError, match="at least two scenes"):
        rate(one)
    with pytest.raises(ValueError, match="at least two scenes"):
        difference(one, outcomes([4.5]))
    with pytest.raises(ValueError, match="at least two scenes; 'tiny' has one"):
        stratified({"tiny": (one, outcomes([4.5]))})
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
        rate(outcomes([1, 0, 1]), confidence=1.5)


def test_one_scene_of_successes_says_almost_nothing() -> None:
    assert rate(outcomes([1])).low < 0.1
    assert difference(outcomes([1]), outcomes([0])).p_better > 0.05
