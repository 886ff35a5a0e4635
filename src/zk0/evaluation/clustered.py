"""How far a mean over training seeds and scenes can be trusted.

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
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


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
    if not 0.5 < probability < 1:
        raise ValueError("confidence must lie between 0 and 1")
    return float(stdtrit(dof, probability))
