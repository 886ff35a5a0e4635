"""Judging: leakage refused, errors by episode, closed loop where there is a simulator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zk0.errors import StageError
from zk0.evaluation.rollouts import Driven, drive
from zk0.params import Params
from zk0.policy.checkpoint import LoadedPolicy
from zk0.study import judging
from zk0.study.judging import judge
from zk0.study.project import StudyProject, refuse_leakage


def test_a_copied_episode_is_leakage(local_project: StudyProject) -> None:
    first, second = local_project.sites
    copied = second.held_out_episodes[0]
    digests = second.episode_digests | {copied: first.episode_digests[first.train_episodes[1]]}
    leaking = second.model_copy(update={"episode_digests": digests})

    refuse_leakage([(first, first.train_episodes)], [first, second])
    refuse_leakage([], [first, leaking])
    with pytest.raises(
        StageError, match=f"held-out episode {copied} of 'cubes-1' is the same as episode {first.train_episodes[1]} of"
    ):
        refuse_leakage([(first, first.train_episodes)], [first, leaking])


def test_without_a_simulator_there_are_errors_only(local_project: StudyProject, small_params: Params) -> None:
    loaded = local_project.policy(small_params).start

    found = judge(local_project, loaded, small_params, range(200_000, 200_003), local_project.manifests)

    assert list(found) == ["cubes-0", "cubes-1"]
    for manifest in local_project.sites:
        task = found[manifest.site]
        assert task.outcomes == {} and task.role == "site"
        assert list(task.episode_error_deg) == list(manifest.held_out_episodes)
        assert list(task.action_error_by_joint) == list(manifest.joints)
        arm = [value for joint, value in task.action_error_by_joint.items() if not joint.startswith("gripper")]
        assert task.action_error_deg == pytest.approx(np.mean(arm))


def test_scenes_are_met_by_every_model_alike(project: StudyProject, study_params: Params) -> None:
    loaded, scenes = project.policy(study_params).start, range(200_000, 200_003)

    found = judge(project, loaded, study_params, scenes, project.unseen)["purple"]

    assert list(found.outcomes) == list(scenes)
    assert found == judge(project, loaded, study_params, scenes, project.unseen)["purple"]
    assert judge(project, loaded, study_params, [], project.unseen)["purple"].outcomes == {}


def test_sites_that_share_a_task_share_its_scenes(
    project: StudyProject, study_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = project.policy(study_params).start
    red = project.sites[0]
    twice = [red, red.model_copy(update={"site": "red-again"})]
    driven: list[str] = []

    def counted(loaded: LoadedPolicy, source: str, *given: Any, **more: Any) -> Driven:
        driven.append(source)
        return drive(loaded, source, *given, **more)

    monkeypatch.setattr(judging, "drive", counted)
    found = judge(project, loaded, study_params, range(200_000, 200_002), twice)

    assert list(found) == ["red", "red-again"] and driven == [red.source]
    assert found["red"].outcomes == found["red-again"].outcomes
