"""The command that the model card and docs/train.md give for an arm, typed as it stands there.

LeRobot runs without zk0, in an environment of its own. Its driver speaks to the servos' protocol on a pseudo terminal,
its camera shows what the simulated arm's cameras see; motors and cameras of metal and glass there are not.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from arm_on_a_line import Driven, type_line
from docs_commands import documented
from packaging.requirements import Requirement
from tests_support import REPO

from zk0.files import write_json
from zk0.params import PromotionParams
from zk0.records.arm_command import rollout_command
from zk0.records.results import Evaluation
from zk0.records.run import Run
from zk0.so100 import JOINTS
from zk0.tracking.project import track
from zk0.tracking.publish import publish_version

pytestmark = pytest.mark.services
LIMITS = {"shoulder_pan": 4.0, "shoulder_lift": 5.5, "elbow_flex": 5.0, "wrist_flex": 4.5, "wrist_roll": 3.0}
LIMITS |= {"gripper": 6.0}
CAMERAS = ("observation.images.top", "observation.images.wrist")
RETURN = 150  # steps that LeRobot takes back to where the arm was, when the time is over
TICK = {joint: 100 / 1500 if joint == "gripper" else 360 / 4095 for joint in JOINTS}


@pytest.fixture(scope="module")
def python() -> Path:
    """Of the environment that scripts/install-arm makes."""
    done = subprocess.run([REPO / "scripts/install-arm"], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"no environment with LeRobot's driver can be made: {(done.stderr.splitlines() or ['?'])[-1]}")
    return REPO / ".cache/arm/bin/python"


@pytest.fixture
def records(tracked: Path, files: Any, spread: Callable[..., list[bool]]) -> tuple[Run, dict[str, Any]]:
    """A run's record and its evaluation, of a model that passed the safety check."""
    tasks = {task: (spread(0.1), spread(0.5)) for task in ("red-cube", "purple-cylinder")}
    content = files.evaluated(tracked, tasks, settings={"max_steps": 40, "actions_per_look": 4})
    content["max_relative_target"] = LIMITS
    write_json(tracked / "results/evaluation.json", content)
    run = Run.model_validate_json((tracked / "results/federation/run.json").read_text())
    return run, content


def kept_within(driven: Driven, limits: dict[str, float], fps: int, seconds: float) -> None:
    """Every goal was a step within its limit from where the arm was, and they came no faster than asked for."""
    assert driven.code == 0, driven.said[-4000:]
    assert driven.limp
    policy = driven.goals[:-RETURN]
    assert 2 <= len(policy) <= fps * seconds + 1
    for sent in driven.goals:
        # Where the machine is busy, LeRobot asks again before it has read the answer, and is one answer behind then.
        for joint in JOINTS:
            steps = [abs(sent["goal"][joint] - read[joint]) for read in sent["seen"]]
            assert min(steps) <= limits[joint] + TICK[joint]
    times = np.array([sent["time"] for sent in policy])
    assert np.median(np.diff(times)) >= 0.9 / fps
    moved = [abs(policy[-1]["seen"][-1][joint] - policy[0]["seen"][-1][joint]) for joint in JOINTS]
    assert max(moved) > 2  # degrees: the arm followed


def test_the_environment_has_what_lerobots_driver_asks_for(python: Path) -> None:
    wanted = [Requirement(line) for line in requires("lerobot") or []]

    def of(extra: str) -> list[Requirement]:
        return [one for one in wanted if one.marker and one.marker.evaluate({"extra": extra}) and not _base(one)]

    named = {inner for one in of("feetech") if one.name == "lerobot" for inner in one.extras} | {"feetech"}
    needed = [one for extra in named for one in of(extra) if one.name != "lerobot"]
    asked = "from importlib.metadata import version; import sys; print(*map(version, sys.argv[1:]))"
    got = subprocess.check_output([python, "-c", asked, *(one.name for one in needed)], text=True).split()

    assert {one.name for one in needed} == {"deepdiff", "feetech-servo-sdk", "pyserial"}
    assert all(one.specifier.contains(version) for one, version in zip(needed, got, strict=True))


def _base(requirement: Requirement) -> bool:
    return requirement.marker is not None and requirement.marker.evaluate({"extra": ""})


def test_the_cards_command_drives_the_arm_within_its_limits(
    python: Path, records: tuple[Run, dict[str, Any]], tracked: Path, tmp_path: Path
) -> None:
    """An untrained policy, so that the limits have to hold."""
    version = track(tracked, "zk0", "zk0-smolvla", promotion=PromotionParams()).model_version
    place = tmp_path / "my arm"
    publish_version(tracked, "zk0-smolvla", version, f"local:{place}")
    (block,) = re.findall(r"```bash\n(.*?)```", (place / "README.md").read_text(), re.S)
    install, enter, line = block.split("\n", 2)
    assert (install, enter) == ('pip install "lerobot[smolvla,dataset,feetech]"', f"cd '{place}'")
    assert line.startswith("lerobot-rollout --policy.path=. --policy.n_action_steps=4 \\\n")

    driven = type_line(python, line.replace("--duration=60", "--duration=4"), place, tmp_path / "arm")

    kept_within(driven, LIMITS, fps=10, seconds=4)
    assert "had to be clamped to be safe" in driven.said
    steps = [abs(one["goal"][j] - one["seen"][-1][j]) / LIMITS[j] for one in driven.goals for j in JOINTS]
    assert max(steps) > 0.95  # and the limits did hold something back


@pytest.mark.release
def test_the_documented_command_drives_the_arm_with_fewer_cameras_than_the_policy_has(
    python: Path, tmp_path: Path
) -> None:
    from zk0.policy import embedded
    from zk0.policy.checkpoint import save_checkpoint, with_stats
    from zk0.policy.start import build_nano

    embedded.write_vlm(tmp_path / "vlm")
    cameras = tuple(f"observation.images.camera{number}" for number in (1, 2, 3))
    unit = {"mean": np.zeros(6), "std": np.full(6, 20.0)}
    policy = with_stats(build_nano(tmp_path / "vlm", cameras, seed=0), {"observation.state": unit, "action": unit})
    save_checkpoint(policy, tmp_path / "best")
    shutil.rmtree(tmp_path / "vlm")
    line = documented("train.md", "lerobot-rollout")
    limits = yaml.safe_load(line.partition("--robot.max_relative_target='")[2].partition("'")[0])

    driven = type_line(python, line.replace("--duration=60", "--duration=4"), tmp_path / "best", tmp_path / "arm")

    kept_within(driven, limits, fps=30, seconds=4)


def test_a_model_that_knows_the_task_pushes_the_cube_through_the_serial_line(
    python: Path, records: tuple[Run, dict[str, Any]], tmp_path: Path
) -> None:
    """By real-time chunking, too: its horizon is no longer than the policy's chunk of 8."""
    run, content = records
    content["max_relative_target"] = {joint: 2 * limit for joint, limit in LIMITS.items()}
    # In another shape the picture would be another one to the policy.
    seen = {"image_shapes": {camera: [3, 96, 96] for camera in CAMERAS}, "tasks": ("push the red cube to the left",)}
    run = run.model_copy(update={"sites": {name: site.model_copy(update=seen) for name, site in run.sites.items()}})
    line = rollout_command(run, Evaluation.model_validate(content))
    assert line is not None
    chunking = "--inference.type=rtc --inference.rtc.execution_horizon=4 --inference.queue_threshold=4"
    line = line.replace("--duration=60", f"--duration=8 {chunking}")

    for seed in (100_003, 100_004, 100_005):  # on a machine that is too busy the arm may be too late for one
        driven = type_line(python, line, REPO / "models/nano-base", tmp_path / f"arm {seed}", seed=seed)
        kept_within(driven, content["max_relative_target"], fps=10, seconds=8)
        assert "RTC inference error" not in driven.said
        if driven.object_moved_m > 0.01:
            break

    assert driven.object_moved_m > 0.01


def test_an_arm_that_was_not_calibrated_is_not_moved(python: Path, tmp_path: Path) -> None:
    line = documented("train.md", "lerobot-rollout")

    driven = type_line(python, line, REPO / "models/nano-base", tmp_path / "arm", calibrated=False)

    assert driven.code != 0 and "Running calibration of mine" in driven.said
    assert driven.goals == [] and driven.object_moved_m < 0.001
