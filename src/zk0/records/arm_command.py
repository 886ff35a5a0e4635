"""What a run's records say to who lets its model drive an arm: LeRobot's command, for model card and `zk0 train`."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from zk0.records.results import Evaluation
from zk0.records.run import Run, Site
from zk0.so100 import IMAGES
from zk0.words import printable

TASK_LONGEST = 200
_UNKNOWN_SHAPE = (3, 480, 640)  # of runs that did not keep it yet; what most cameras give


def rollout_command(run: Run, evaluation: Evaluation) -> str | None:
    """``lerobot-rollout`` for an SO-101 with the model of a run, to be typed in the checkpoint's own folder.

    There ``vlm``, by which a checkpoint names the vision-language model that it carries, is a path that LeRobot finds
    by itself. The arm is driven as the model was judged: at its rate, with as many actions a look where rollouts were
    run, and each step cut at the evaluation's ``max_relative_target``. Port and cameras' numbers are the reader's to
    set; sizes are those of the recordings, since another shape shows the policy another picture.

    Args:
        run: Whose sites say cameras by the policy's names, frames a second and task.
        evaluation: Of the same run.

    Returns:
        The command, over several lines; None where the evaluation gives no limits, since an arm without is no way.
    """
    limits, sites = evaluation.max_relative_target, list(run.sites.values())
    if limits is None:
        return None
    first = sites[0]
    task = printable(first.tasks[0] if first.tasks else "", TASK_LONGEST)
    lines = [
        "lerobot-rollout --policy.path=." + _actions_a_look(evaluation),
        "--robot.type=so101_follower --robot.id=mine --robot.port=/dev/ttyACM0",
        f"--robot.max_relative_target={_flow(limits)}",
        f"--robot.cameras={_flow(_cameras(sites))}",
        f"--task={shlex.quote(task)} --fps={first.fps or 30} --duration=60",
    ]
    return " \\\n  ".join(lines)


def way_to_the_arm(run: Run, evaluation: Evaluation) -> str:
    """The command for who trained the model just now, or why there is none."""
    if not evaluation.safety.trained.passed:
        return f"not for an arm: it failed the safety check ({', '.join(evaluation.safety.trained.failed)})"
    command = rollout_command(run, evaluation)
    if command is None:
        return "not for an arm: its evaluation gives no limits for steps; evaluate it anew"
    return f"on an arm, typed in that folder; docs/train.md says what it needs first:\n{command}"


def _actions_a_look(evaluation: Evaluation) -> str:
    actions = evaluation.settings.get("actions_per_look")
    driven = any(task.trained.rollouts for task in evaluation.tasks.values())
    return f" --policy.n_action_steps={actions}" if driven and actions else ""


def _cameras(sites: list[Site]) -> dict[str, dict[str, Any]]:
    """The cameras that any site has, since others were never shown to the policy, as the first site has them."""
    found: dict[str, dict[str, Any]] = {}
    for site in sites:
        for camera in site.cameras:
            _, height, width = site.image_shapes.get(camera, _UNKNOWN_SHAPE)
            size = {"width": width, "height": height, "fps": (site.fps or 30) * (site.every or 1)}
            name = camera.removeprefix(f"{IMAGES}.")
            found.setdefault(name, {"type": "opencv", "index_or_path": len(found), **size})
    return found


def _flow(value: dict[str, Any]) -> str:
    """As YAML in one line, quoted for a shell."""
    return shlex.quote(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).strip())
