"""Judge a model on every task: closed loop, held-out loss and action error, on what it was not trained on.

Scenes, noise and times are fixed by seed, the same for every model, so that comparisons are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from zk0.data.clips import motion_of
from zk0.data.manifest import Manifest
from zk0.errors import StageError
from zk0.evaluation.held_out import episode_errors, held_out_loss, mean_error
from zk0.evaluation.rollouts import roll_out_source
from zk0.params import Params
from zk0.policy.checkpoint import LoadedPolicy
from zk0.study.project import StudyProject

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
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Figures of a model, task by task.

    Args:
        project: Where the data is.
        loaded: The model with its normalisation.
        params: The study's; its ``seed``, not the training seed, fixes noise and times.
        scenes: Seeds of the closed-loop episodes; none are run where a task has no simulator.
        judged: The tasks.

    Yields:
        Task and its ``role``, ``outcomes`` (scene to success), ``held_out_loss``, ``action_error_deg`` (mean over
        the arm's joints), ``action_error_by_joint`` and ``episode_error_deg`` (held-out episode to mean).
    """
    met: dict[str, dict[str, bool]] = {}  # sites may share a task, and then its scenes
    for manifest in judged:
        if manifest.source not in met:
            met[manifest.source] = outcomes(loaded, manifest, params, scenes)
        site = project.site(manifest)
        frames, features = site.held_out_frames, site.features("held-out", loaded, params.features)
        loss = held_out_loss(loaded, frames, params.evaluation.loss_draws, params.seed, features)
        errors = episode_errors(loaded, frames, params.seed, features)
        by_joint = mean_error(errors)
        # The gripper is in percent of its opening; degrees are of the other joints.
        arm = [index for index, joint in enumerate(manifest.joints) if not joint.startswith("gripper")]
        yield (
            manifest.site,
            {
                "role": manifest.role,
                "outcomes": met[manifest.source],
                "held_out_loss": loss,
                "action_error_deg": float(by_joint[arm].mean()),
                "action_error_by_joint": dict(zip(manifest.joints, by_joint.tolist(), strict=True)),
                "episode_error_deg": {str(e): float(error[arm].mean()) for e, (error, _) in errors.items()},
            },
        )


def outcomes(loaded: LoadedPolicy, manifest: Manifest, params: Params, scenes: Sequence[int]) -> dict[str, bool]:
    """Whether the model did the task, by scene; nothing where there is no simulator of it."""
    rollouts = roll_out_source(loaded, manifest.source, params.evaluation, scenes, side_by_side=_SIDE_BY_SIDE)
    return {str(rollout.seed): rollout.success for rollout in rollouts}
