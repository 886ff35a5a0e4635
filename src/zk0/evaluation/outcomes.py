"""What models came to, scene by scene, so that two of them can be paired."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


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
        seeds_, rows = _chosen("training seed", seeds, self.seeds)
        tasks_, middle = _chosen("task", tasks, self.tasks)
        scenes_, columns = _chosen("scene", scenes, self.scenes)
        return Outcomes(self.values[np.ix_(rows, middle, columns)], tasks_, seeds_, scenes_)


def _chosen[L](name: str, wanted: Sequence[L] | None, have: tuple[L, ...]) -> tuple[tuple[L, ...], list[int]]:
    """The labels that are wanted, or all, and their places."""
    labels = have if wanted is None else tuple(wanted)
    if missing := [label for label in labels if label not in have]:
        raise UnpairedError(f"there are no outcomes for {name} {listed(missing)}; there are {listed(have)}")
    return labels, [have.index(label) for label in labels]


def aligned(a: Outcomes, b: Outcomes) -> tuple[Outcomes, Outcomes]:
    """Both in the order of ``a``.

    Raises:
        UnpairedError: They do not share tasks, scenes or, where both have several, training seeds.
    """
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
        told = [f"lacks {listed(lacking)}"] * bool(lacking) + [f"has {listed(extra)} besides"] * bool(extra)
        raise kind(f"outcomes cannot be paired, their {what} differ: {where} {' and '.join(told)}")


def listed(labels: Sequence[object], most: int = 5) -> str:
    """Labels in a sentence, the first of many.

    >>> listed(["red", 2, 3], most=2)
    "'red', 2 and 1 more"
    """
    shown = ", ".join(f"'{label}'" if isinstance(label, str) else str(label) for label in labels[:most])
    return shown + (f" and {len(labels) - most} more" if len(labels) > most else "")
