"""Judge a model on every task of a study, on what it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

from zk0.data.clips import motion_of
from zk0.data.manifest import Manifest
from zk0.errors import StageError
from zk0.evaluation.judge import judge_task
from zk0.evaluation.rollouts import Rollout, roll_out_source
from zk0.params import Params
from zk0.policy.checkpoint import LoadedPolicy
from zk0.study.project import StudyProject
from zk0.study.results_store import TaskResult

_SIDE_BY_SIDE = 25


def refuse_leakage(trained: Sequence[tuple[Manifest, Sequence[int]]], judged: Sequence[Manifest]) -> None:
    """Refuse to judge a model on an episode that it was trained on, by the digests of the episodes' motion.

    So also a copy under another name, in another dataset or with other videos is found.

    Args:
        trained: Manifests, and which of their episodes were trained on.
        judged: Manifests, on whose held-out episodes a model is judged.

    Raises:
        StageError: Names both sites and episodes.
    """
    seen = {
        motion_of(manifest.episode_digests[e]): (manifest.site, e) for manifest, episodes in trained for e in episodes
    }
    for manifest in judged:
        for episode in manifest.held_out_episodes:
            if (found := seen.get(motion_of(manifest.episode_digests[episode]))) is not None:
                raise StageError(
                    f"leakage: held-out episode {episode} of '{manifest.site}' is the same as episode {found[1]} of "
                    f"'{found[0]}', which was trained on; remove the copy from one of the two sources"
                )


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
    met: dict[str, list[Rollout]] = {}  # sites may share a task, and then its scenes
    found = {}
    for manifest in judged:
        source = manifest.source
        if source not in met:
            met[source] = roll_out_source(loaded, source, params.evaluation, scenes, side_by_side=_SIDE_BY_SIDE)
        score = judge_task(loaded, manifest, project.site(manifest), params, met[source]).score
        found[manifest.site] = TaskResult.of(manifest.role, score)
    return found
