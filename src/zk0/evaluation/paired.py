"""Compare two models on the same scenes: rates with intervals, paired differences with tests.

Outcomes lie on a grid of training seeds x scenes, and both repeat: a training seed marks everything
that its model does, a scene is met by every training seed and by both arms. Observations that share
either are not independent, so variances are clustered both ways: Cameron, Gelbach and Miller,
"Robust Inference With Multiway Clustering", Journal of Business & Economic Statistics 29(2), 2011.
On a balanced grid their estimator is the analysis of variance of a crossed design without
repetition, which is used here because it is unbiased for few clusters:

    Var(mean) = (MS_seed + MS_scene - MS_rest) / (S * N)

with neither mean square below that of the rest (a variance component is not negative), and degrees
of freedom after Satterthwaite, "An Approximate Distribution of Estimates of Variance Components",
Biometrics Bulletin 2(6), 1946. Few training seeds thus cost what they should: when seeds decide,
three of them leave two degrees of freedom.

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

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

CONFIDENCE = 0.95


class UnpairedError(ValueError):
    """Outcomes that do not belong to the same tasks, scenes and training seeds."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What one model, or one way of training, came to.

    Attributes:
        values: (S, T, N) float64: 1 for success and 0 for failure, or any finite number of which
            more is better or worse (errors in degrees).
        tasks: T names.
        seeds: S training seeds. The base policy has none: give it one, any; it is set against
            every training seed of the other.
        scenes: N scene ids (rollout seeds, or held-out episodes), the same for every task.

    Raises:
        ValueError: Shapes and names disagree, names repeat, or a value is not finite.
    """

    values: np.ndarray
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    scenes: tuple[int, ...]

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        for name, labels in (("training seeds", self.seeds), ("tasks", self.tasks), ("scenes", self.scenes)):
            if not labels:
                raise ValueError(f"outcomes need at least one of {name}")
            if len(set(labels)) != len(labels):
                raise ValueError(f"{name} must differ, got {labels}")
        expected = (len(self.seeds), len(self.tasks), len(self.scenes))
        if values.shape != expected:
            raise ValueError(
                f"outcomes must have shape (training seeds, tasks, scenes) = {expected}, got {values.shape}"
            )
        if not np.isfinite(values).all():
            seed, task, scene = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise ValueError(
                f"outcomes must be finite; task '{self.tasks[task]}', training seed {self.seeds[seed]}, "
                f"scene {self.scenes[scene]} has {values[seed, task, scene]}"
            )
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    @classmethod
    def of(cls, results: Mapping[int, Mapping[str, Mapping[int, float]]]) -> Outcomes:
        """From training seed to task to scene to value; the order of the first seed is kept.

        Raises:
            ValueError: The seeds do not have the same tasks, or the tasks not the same scenes.
        """
        if not results:
            raise ValueError("outcomes need at least one of training seeds")
        tasks = tuple(next(iter(results.values())))
        scenes = tuple(next(iter(results.values()))[tasks[0]]) if tasks else ()
        for seed, by_task in results.items():
            _same("tasks", f"training seed {seed}", by_task, tasks, ValueError)
            for task, by_scene in by_task.items():
                _same("scenes", f"training seed {seed}, task '{task}'", by_scene, scenes, ValueError)
        values = [[[by_task[task][scene] for scene in scenes] for task in tasks] for by_task in results.values()]
        return cls(np.array(values, dtype=np.float64), tasks, tuple(results), scenes)

    @property
    def binary(self) -> bool:
        """Whether these are successes and failures."""
        return bool(np.isin(self.values, (0.0, 1.0)).all())

    def only(
        self,
        tasks: Sequence[str] | None = None,
        scenes: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Outcomes:
        """Some tasks, scenes and training seeds, in the order given.

        Raises:
            UnpairedError: One of them is not here.
        """
        chosen = []
        for name, wanted, have in (
            ("training seed", seeds, self.seeds),
            ("task", tasks, self.tasks),
            ("scene", scenes, self.scenes),
        ):
            labels = tuple(have) if wanted is None else tuple(wanted)
            if missing := [label for label in labels if label not in have]:
                raise UnpairedError(f"there are no outcomes for {name} {_listed(missing)}; there are {_listed(have)}")
            chosen.append((labels, [have.index(label) for label in labels]))  # type: ignore[arg-type]
        (seeds_, rows), (tasks_, middle), (scenes_, columns) = chosen
        return Outcomes(self.values[np.ix_(rows, middle, columns)], tasks_, seeds_, scenes_)  # type: ignore[arg-type]


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


@dataclass(frozen=True)
class _Mean:
    """A mean, its sampling variance and that variance's degrees of freedom."""

    value: float
    variance: float
    dof: float


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
    mean = _clustered(outcomes.values.mean(axis=1))
    if not outcomes.binary:
        if len(outcomes.scenes) < 2:
            raise ValueError("an interval needs at least two scenes")
        reach = float(np.sqrt(mean.variance)) * _quantile((1 + confidence) / 2, mean.dof)
        return Estimate(mean.value, mean.value - reach, mean.value + reach)
    p, scenes = mean.value, len(outcomes.scenes)
    trials = float(scenes)
    if mean.variance > 0:
        trials = min(p * (1 - p) / mean.variance * scenes / (scenes - 1), float(outcomes.values.size))
    z2 = _quantile((1 + confidence) / 2, mean.dof) ** 2
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
    a, b = _paired(a, b)
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
    paired = [_paired(a, b) for a, b in pairs.values()]
    values, centres = zip(*(_centred(a, b) for a, b in paired), strict=True)
    variances = np.array([centre.variance for centre in centres])
    if unknown := [task for task, centre in zip(pairs, centres, strict=True) if centre.dof <= 0]:
        raise ValueError(f"an interval needs at least two scenes; {_listed(unknown)} has one")
    dofs = np.array([centre.dof for centre in centres])
    total = float(variances.sum())
    dof = total**2 / float((variances**2 / dofs).sum()) if total else float(dofs.sum())
    centre = _Mean(float(np.mean([c.value for c in centres])), total / len(pairs) ** 2, dof)
    return _tested(float(np.mean(values)), centre, all(a.binary and b.binary for a, b in paired), confidence)


def by_task(a: Outcomes, b: Outcomes, confidence: float = CONFIDENCE) -> dict[str, Difference]:
    """:func:`difference` for each task alone.

    Raises:
        UnpairedError: As there.
    """
    a, b = _paired(a, b)
    return {task: difference(a.only(tasks=(task,)), b.only(tasks=(task,)), confidence) for task in a.tasks}


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P values adjusted for there being several: Holm, Scandinavian Journal of Statistics 6(2), 1979.

    >>> {name: round(p, 2) for name, p in holm({"red": 0.01, "blue": 0.04, "green": 0.03}).items()}
    {'red': 0.03, 'blue': 0.06, 'green': 0.06}
    """
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def _clustered(cells: np.ndarray) -> _Mean:
    """Mean of (S, N) cells and its variance, clustered both ways; see the module's docstring."""
    seeds, scenes = cells.shape
    mean = float(cells.mean())
    if scenes < 2:
        return _Mean(mean, 0.0, 1.0)
    by_seed, by_scene = cells.mean(axis=1), cells.mean(axis=0)
    scene = float(seeds * by_scene.var(ddof=1))
    if seeds == 1:
        return _Mean(mean, scene / scenes, scenes - 1.0)
    seed = float(scenes * by_seed.var(ddof=1))
    rest = float(((cells - by_seed[:, None] - by_scene + mean) ** 2).sum() / ((seeds - 1) * (scenes - 1)))
    seed, scene = max(seed, rest), max(scene, rest)
    total = seed + scene - rest
    if total <= 1e-15:
        return _Mean(mean, 0.0, scenes - 1.0)
    parts = seed**2 / (seeds - 1) + scene**2 / (scenes - 1) + rest**2 / ((seeds - 1) * (scenes - 1))
    fewest = float(min(seeds, scenes) - 1)
    return _Mean(mean, total / cells.size, min(max(total**2 / parts, fewest), scenes - 1.0))


def _centred(a: Outcomes, b: Outcomes) -> tuple[float, _Mean]:
    """The mean difference as observed, and the one that an interval is centred on."""
    mean = _clustered((a.values - b.values).mean(axis=1))
    scenes = len(a.scenes)
    if a.binary and b.binary:
        return mean.value, _with_two_scenes(mean, scenes, len(a.tasks))
    return mean.value, mean if scenes > 1 else _Mean(mean.value, mean.variance, 0.0)


def _tested(value: float, centre: _Mean, bounded: bool, confidence: float) -> Difference:
    """Interval, bounds and p values around a centre; differences of rates stay within -1 and 1."""
    if centre.dof <= 0:
        raise ValueError("an interval needs at least two scenes")
    deviation = float(np.sqrt(centre.variance))
    two_sided = deviation * _quantile((1 + confidence) / 2, centre.dof)
    one_sided = deviation * _quantile(confidence, centre.dof)
    ends = [centre.value - two_sided, centre.value + two_sided, centre.value - one_sided, centre.value + one_sided]
    low, high, lower, upper = (float(np.clip(end, -1, 1)) if bounded else float(end) for end in ends)
    if deviation:
        score = centre.value / deviation
        p_better, p_worse = float(student.sf(score, centre.dof)), float(student.cdf(score, centre.dof))
    else:  # the very same difference everywhere: nothing is left to chance but a tie
        p_better, p_worse = float(centre.value <= 0), float(centre.value >= 0)
    return Difference(value, min(low, value), max(high, value), lower, upper, p_better, p_worse)


def _with_two_scenes(mean: _Mean, scenes: int, tasks: int) -> _Mean:
    """Agresti and Min's two scenes, one win and one loss at half weight and a tie, in every task.

    What they add to the variance is known, so it adds degrees of freedom.
    """
    larger = scenes + 2
    observed = mean.variance * scenes**2
    total = observed + 2 * scenes * mean.value**2 / larger + 1 / tasks
    dof = mean.dof * (total / observed) ** 2 if observed else float(scenes)
    return _Mean(mean.value * scenes / larger, total / larger**2, min(dof, max(scenes - 1.0, 1.0)))


def _quantile(probability: float, dof: float) -> float:
    if not 0.5 < probability < 1:
        raise ValueError("confidence must lie between 0 and 1")
    return float(student.ppf(probability, dof))


def _paired(a: Outcomes, b: Outcomes) -> tuple[Outcomes, Outcomes]:
    """Both in the order of ``a``."""
    _same("tasks", "the second", b.tasks, a.tasks, UnpairedError)
    _same("scenes", "the second", b.scenes, a.scenes, UnpairedError)
    seeds: tuple[int, ...] | None = None
    if len(a.seeds) > 1 and len(b.seeds) > 1:
        _same("training seeds", "the second", b.seeds, a.seeds, UnpairedError)
        seeds = a.seeds
    return a, b.only(tasks=a.tasks, scenes=a.scenes, seeds=seeds)


def _same(
    what: str, where: str, found: Collection[object], expected: Collection[object], kind: type[ValueError]
) -> None:
    """Refuse labels that are not the expected ones, in any order."""
    lacking = [label for label in expected if label not in found]
    extra = [label for label in found if label not in expected]
    if lacking or extra:
        told = [f"lacks {_listed(lacking)}"] * bool(lacking) + [f"has {_listed(extra)} besides"] * bool(extra)
        raise kind(f"outcomes cannot be paired, their {what} differ: {where} {' and '.join(told)}")


def _listed(labels: Sequence[object], most: int = 5) -> str:
    shown = ", ".join(f"'{label}'" if isinstance(label, str) else str(label) for label in labels[:most])
    return shown + (f" and {len(labels) - most} more" if len(labels) > most else "")
