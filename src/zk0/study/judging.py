"""What a model comes to on a study's tasks."""

from __future__ import annotations

from collections.abc import Sequence

from zk0.data.manifest import Manifest
from zk0.evaluation.judge import judge_task
from zk0.evaluation.rollouts import Driven, drive
from zk0.params import Params
from zk0.policy.checkpoint import LoadedPolicy
from zk0.study.project import StudyProject
from zk0.study.results_store import TaskResult

_SIDE_BY_SIDE = 25  # rollouts


def judge(
    project: StudyProject, loaded: LoadedPolicy, params: Params, scenes: Sequence[int], judged: Sequence[Manifest]
) -> dict[str, TaskResult]:
    """What a model comes to, task by task.

    Args:
        project: Where the data is.
        loaded: The model with its normalisation.
        params: The study's; its ``seed``, not the training seed, fixes noise and times.
        scenes: Seeds of the closed-loop episodes; none are run where a task has no simulator.
        judged: The tasks.
    """
    met: dict[str, Driven] = {}  # sites may share a task, and then its scenes
    found = {}
    for manifest in judged:
        source = manifest.source
        if source not in met:
            met[source] = drive(loaded, source, params.evaluation, project.limits, scenes, side_by_side=_SIDE_BY_SIDE)
        score = judge_task(loaded, project.site(manifest), params, met[source]).score
        found[manifest.site] = TaskResult.of(manifest.role, score)
    return found
