"""LeRobot's command for an arm, made of a run's records."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import yaml

from zk0.records.arm_command import rollout_command, way_to_the_arm
from zk0.records.results import Evaluation
from zk0.records.run import Run

LIMITS = {"shoulder_pan": 4.1, "gripper": 12.0}


def site(**others: Any) -> dict[str, Any]:
    cameras = ["observation.images.top", "observation.images.wrist"]
    shapes = {"observation.images.top": [3, 480, 640], "observation.images.wrist": [3, 240, 320]}
    about = {"source": "local:cups", "fps": 10, "every": 3, "tasks": ["lift the cube"]}
    return about | {"cameras": cameras, "image_shapes": shapes} | others


def run_of(*sites: dict[str, Any]) -> Run:
    kept = {"path": "checkpoints/best", "digest": "d"}
    now = "2026-03-01T10:00:00+00:00"
    return Run.model_validate(
        {
            "run": "r",
            "started": now,
            "ended": now,
            "params": {},
            "base": {"source": "models/nano-base", "digest": "b"},
            "sites": {str(number): one for number, one in enumerate(sites)},
            "rounds": 1,
            "best_round": 1,
            "git": {},
            "checkpoints": {"best": kept, "last": kept},
        }
    )


def evaluation_of(rollouts: int = 0, passed: bool = True, limits: dict[str, float] | None = LIMITS) -> Evaluation:
    checks = [{"name": "joint ranges, held-out", "passed": passed}]
    safety = {"passed": passed, "checks": checks}
    task = {"role": "site", "base": {}, "global": {"rollouts": rollouts}}
    both = {"base": {"digest": "b"}, "global": {"digest": "d"}}
    return Evaluation.model_validate(
        {
            "models": both,
            "settings": {"max_steps": 40, "actions_per_look": 4},
            "tasks": {"cups": task},
            "overall": {"base": {}, "global": {}},
            "safety": {"base": safety, "global": safety},
            "max_relative_target": limits,
        }
    )


def words(command: str | None) -> dict[str, str]:
    """Option to value, as a shell hands them over."""
    assert command is not None
    program, *rest = shlex.split(command.replace("\\\n", " "))
    assert program == "lerobot-rollout"
    return dict(one.removeprefix("--").split("=", 1) for one in rest)


def test_it_has_all_that_the_models_figures_rest_on() -> None:
    given = words(rollout_command(run_of(site()), evaluation_of(rollouts=50)))

    assert yaml.safe_load(given["robot.max_relative_target"]) == LIMITS
    assert yaml.safe_load(given["robot.cameras"]) == {
        "top": {"type": "opencv", "index_or_path": 0, "width": 640, "height": 480, "fps": 30},
        "wrist": {"type": "opencv", "index_or_path": 1, "width": 320, "height": 240, "fps": 30},
    }
    assert (given["task"], given["fps"], given["policy.n_action_steps"]) == ("lift the cube", "10", "4")


def test_what_was_not_judged_is_not_said() -> None:
    assert "policy.n_action_steps" not in words(rollout_command(run_of(site()), evaluation_of()))


def test_cameras_are_those_that_any_site_has() -> None:
    few = site(cameras=["observation.images.side"], image_shapes={}, every=None, fps=None)

    given = words(rollout_command(run_of(few, site()), evaluation_of()))

    cameras = yaml.safe_load(given["robot.cameras"])
    assert list(cameras) == ["side", "top", "wrist"]
    assert [one["index_or_path"] for one in cameras.values()] == [0, 1, 2]
    assert cameras["side"] | {"width": 640, "height": 480, "fps": 30} == cameras["side"]


@pytest.mark.parametrize("sentence", ["it's $(touch x)", "a\n```\n# b", "`c`; d", ""])
def test_a_strangers_sentence_stays_one_word_of_the_command(sentence: str) -> None:
    command = rollout_command(run_of(site(tasks=[sentence])), evaluation_of())

    assert words(command)["task"] == " ".join(sentence.split())
    assert command is not None and "\n```" not in command


def test_a_strangers_camera_stays_one_camera() -> None:
    name = "x: {}, 'y"
    command = rollout_command(run_of(site(cameras=[f"observation.images.{name}"])), evaluation_of())

    assert list(yaml.safe_load(words(command)["robot.cameras"])) == [name]


def test_no_limits_no_command() -> None:
    assert rollout_command(run_of(site()), evaluation_of(limits=None)) is None
    assert "gives no limits" in way_to_the_arm(run_of(site()), evaluation_of(limits=None))


def test_who_trained_a_model_is_told_the_command_or_why_there_is_none() -> None:
    run = run_of(site())

    assert way_to_the_arm(run, evaluation_of()).endswith(rollout_command(run, evaluation_of()) or "none")
    refused = way_to_the_arm(run, evaluation_of(passed=False))
    assert refused == "not for an arm: it failed the safety check (joint ranges, held-out)"
