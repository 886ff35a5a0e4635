"""Compare two models on the same scenes: rates with intervals, paired differences with tests.

Tasks are fixed, not sampled, and each weighs the same. With one training seed the statements are
about that model, not about the way it was trained.

>>> twice = np.array([[[1, 1, 1, 1, 1, 1, 0, 1]], [[1, 1, 1, 0, 1, 1, 1, 1]]])
>>> seldom = np.array([[[0, 0, 0, 0, 1, 0, 0, 0]]])
>>> a = Outcomes(twice, ("red",), (1, 2), tuple(range(8)))
>>> b = Outcomes(seldom, ("red",), (0,), tuple(range(8)))
>>> found = difference(a, b)
>>> round(found.value, 3), found.lower_bound > 0, found.p_better < 0.05
(0.75, True, True)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.special import stdtr, stdtrit

from zk0.evaluation.outcomes import Outcomes, UnpairedError, aligned, listed

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean and its two-sided interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A mean paired difference, a minus b.

    Attributes:
        value: The difference as observed.
        low: Lower end of the two-sided interval.
        high: Upper end of it.
        lower_bound: One-sided: the difference is at least this.
        upper_bound: One-sided: the difference is at most this.
        p_better: One-sided p value against "a is not greater than b".
        p_worse: One-sided p value against "a is not less than b".
    """

    value: float
    low: float
    high: float
    lower_bound: float
    upper_bound: float
    p_better: float
    p_worse: float


def rate(outcomes: Outcomes, confidence: float = CONFIDENCE) -> Estimate:
    """Mean over tasks, each weighing the same, with an interval clustered by training seed and scene.

    Of successes the interval is Wilson's on the effective number of scenes, the number of independent
    ones that would have this variance (Korn and Graubard, "Confidence Intervals for Proportions With
    Small Expected Number of Positive Counts Estimated From Survey Data", Survey Methodology 24(2),
    1998), at the t quantile. Where nothing varied, that number is the scenes' own. It assumes that
    scenes and training seeds are drawn independently, and needs no assumption on how strong either is.

    Raises:
        ValueError: Values other than successes and failures with fewer than two scenes.
    """
    mean = clustered(outcomes.values.mean(axis=1))
    if not outcomes.binary:
        if len(outcomes.scenes) < 2:
            raise ValueError("an interval needs at least two scenes")
        reach = float(np.sqrt(mean.variance)) * quantile((1 + confidence) / 2, mean.dof)
        return Estimate(mean.value, mean.value - reach, mean.value + reach)
    p, scenes = mean.value, len(outcomes.scenes)
    trials = float(scenes)
    if mean.variance > 0:
        trials = min(p * (1 - p) / mean.variance * scenes / (scenes - 1), float(outcomes.values.size))
    z2 = quantile((1 + confidence) / 2, mean.dof) ** 2
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    reach = np.sqrt(z2 * (p * (1 - p) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    # Rounding must not put the ends past what was observed.
    return Estimate(p, float(min(max(0.0, centre - reach), p)), float(max(min(1.0, centre + reach), p)))


def difference(a: Outcomes, b: Outcomes, confidence: float = CONFIDENCE) -> Difference:
    """Mean paired difference a minus b over tasks, each weighing the same, on the same scenes.

    Where both are successes and failures, two scenes are added in thought, half a win, half a loss
    and a tie: Agresti and Min, "Effects and Non-Effects of Paired Identical Observations in Comparing
    Proportions With Binary Matched-Pairs Data", Statistics in Medicine 23(1), 2004, and "Simple
    Improved Confidence Intervals for Comparing Matched Proportions", Statistics in Medicine 24(5),
    2005. Without them a handful of scenes that happen to agree would pass for certainty.

    Args:
        a: One model.
        b: The other. Whichever has one training seed is set against all of the other's.
        confidence: Of the interval and of each one-sided bound.

    Raises:
        UnpairedError: The two do not share tasks, scenes or training seeds.
        ValueError: Values other than successes and failures with fewer than two scenes.
    """
    a, b = aligned(a, b)
    return _tested(*_centred(a, b), a.binary and b.binary, confidence)


def stratified(pairs: Mapping[str, tuple[Outcomes, Outcomes]], confidence: float = CONFIDENCE) -> Difference:
    """:func:`difference` over tasks that do not share their scenes, each weighing the same.

    Held-out episodes of different sites are other episodes, and not as many: their differences are
    independent, so variances add up, with degrees of freedom after Satterthwaite.

    Args:
        pairs: Task to the outcomes of a and b on it.
        confidence: Of the interval and of each one-sided bound.

    Raises:
        UnpairedError: Two of a task do not share scenes or training seeds, or there is no task.
        ValueError: Values other than successes and failures with fewer than two scenes.
    """
    if not pairs:
        raise UnpairedError("there is no task that both were judged on")
    couples = [aligned(a, b) for a, b in pairs.values()]
    values, centres = zip(*(_centred(a, b) for a, b in couples), strict=True)
    variances = np.array([centre.variance for centre in centres])
    if unknown := [task for task, centre in zip(pairs, centres, strict=True) if centre.dof <= 0]:
        raise ValueError(f"an interval needs at least two scenes; {listed(unknown)} has one")
    dofs = np.array([centre.dof for centre in centres])
    total = float(variances.sum())
    dof = total**2 / float((variances**2 / dofs).sum()) if total else float(dofs.sum())
    centre = Mean(float(np.mean([c.value for c in centres])), total / len(pairs) ** 2, dof)
    return _tested(float(np.mean(values)), centre, all(a.binary and b.binary for a, b in couples), confidence)


def _centred(a: Outcomes, b: Outcomes) -> tuple[float, Mean]:
    """The mean difference as observed, and the one that an interval is centred on."""
    mean = clustered((a.values - b.values).mean(axis=1))
    scenes = len(a.scenes)
    if a.binary and b.binary:
        return mean.value, with_two_scenes(mean, scenes, len(a.tasks))
    return mean.value, mean if scenes > 1 else Mean(mean.value, mean.variance, 0.0)


def _tested(value: float, centre: Mean, bounded: bool, confidence: float) -> Difference:
    """Interval, bounds and p values around a centre; differences of rates stay within -1 and 1."""
    if centre.dof <= 0:
        raise ValueError("an interval needs at least two scenes")
    deviation = float(np.sqrt(centre.variance))
    two_sided = deviation * quantile((1 + confidence) / 2, centre.dof)
    one_sided = deviation * quantile(confidence, centre.dof)
    ends = [centre.value - two_sided, centre.value + two_sided, centre.value - one_sided, centre.value + one_sided]
    low, high, lower, upper = (float(np.clip(end, -1, 1)) if bounded else float(end) for end in ends)
    if deviation:
        score = centre.value / deviation
        p_better, p_worse = float(stdtr(centre.dof, -score)), float(stdtr(centre.dof, score))
    else:  # the very same difference everywhere: nothing is left to chance but a tie
        p_better, p_worse = float(centre.value <= 0), float(centre.value >= 0)
    return Difference(value, min(low, value), max(high, value), lower, upper, p_better, p_worse)


@dataclass(frozen=True)
class Mean:
    """A mean, its sampling variance and that variance's degrees of freedom."""

    value: float
    variance: float
    dof: float


def clustered(cells: np.ndarray) -> Mean:
    """Mean of (S, N) cells and its variance, clustered both ways; see above."""
    seeds, scenes = cells.shape
    mean = float(cells.mean())
    if scenes < 2:
        return Mean(mean, 0.0, 1.0)
    by_seed, by_scene = cells.mean(axis=1), cells.mean(axis=0)
    scene = float(seeds * by_scene.var(ddof=1))
    if seeds == 1:
        return Mean(mean, scene / scenes, scenes - 1.0)
    seed = float(scenes * by_seed.var(ddof=1))
    rest = float(((cells - by_seed[:, None] - by_scene + mean) ** 2).sum() / ((seeds - 1) * (scenes - 1)))
    seed, scene = max(seed, rest), max(scene, rest)
    total = seed + scene - rest
    if total <= 1e-15:
        return Mean(mean, 0.0, scenes - 1.0)
    parts = seed**2 / (seeds - 1) + scene**2 / (scenes - 1) + rest**2 / ((seeds - 1) * (scenes - 1))
    fewest = float(min(seeds, scenes) - 1)
    return Mean(mean, total / cells.size, min(max(total**2 / parts, fewest), scenes - 1.0))


def with_two_scenes(mean: Mean, scenes: int, tasks: int) -> Mean:
    """Agresti and Min's two scenes, one win and one loss at half weight and a tie, in every task.

    What they add to the variance is known, so it adds degrees of freedom.
    """
    larger = scenes + 2
    observed = mean.variance * scenes**2
    total = observed + 2 * scenes * mean.value**2 / larger + 1 / tasks
    dof = mean.dof * (total / observed) ** 2 if observed else float(scenes)
    return Mean(mean.value * scenes / larger, total / larger**2, min(dof, max(scenes - 1.0, 1.0)))


def quantile(probability: float, dof: float) -> float:
    """Of Student's t distribution; raises ValueError for a probability of one half or less, or of one."""
    if not 0.5 < probability < 1:
        raise ValueError("confidence must lie between 0 and 1")
    return float(stdtrit(dof, probability))


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.

    >>> tuple(round(bound, 3) for bound in wilson(8, 10))
    (0.49, 0.943)
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    failures, whole = trials - successes, trials + z**2
    centre = (successes + z**2 / 2) / whole
    half = z * math.sqrt(successes * failures / trials + z**2 / 4) / whole
    # At the ends rounding must not leave a hair's breadth.
    return centre - half if successes else 0.0, centre + half if failures else 1.0


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p value: how often a fair coin would differ from half by as much.

    >>> sign_test(1, 7)
    0.0703125
    """
    tosses = wins + losses
    tail = sum(math.comb(tosses, fewer) for fewer in range(min(wins, losses) + 1))
    return float(min(1.0, 2 * tail / 2**tosses))
