"""LeRobot's own evaluation command drives the simulated arm with a checkpoint of this project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import pytest

from zk0.files import read_json

pytestmark = pytest.mark.services
REPO = Path(__file__).resolve().parents[2]


def test_lerobot_eval_runs_a_checkpoint_from_anywhere(tmp_path: Path) -> None:
    shutil.copytree(REPO / "models" / "nano-base", tmp_path / "elsewhere")
    # The plugin sets up rendering by itself, and nothing is fetched.
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"} | {"HF_HUB_OFFLINE": "1"}
    command = [
        str(Path(sys.executable).with_name("lerobot-eval")),
        "--policy.path=elsewhere",
        "--policy.device=cpu",
        "--env.type=zk0_so101",
        "--env.task=public-touch",
        "--env.episode_length=12",
        "--seed=100000",
        "--eval.n_episodes=2",
        "--eval.batch_size=1",
        "--eval.use_async_envs=false",
        "--output_dir=evaluated",
    ]

    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, done.stderr[-4000:]
    assert "EGL" not in done.stderr  # the GL contexts were closed
    result = read_json(tmp_path / "evaluated" / "eval_info.json")
    (task,) = result["per_task"]
    assert task["task_group"] == "zk0_so101"
    assert result["overall"]["n_episodes"] == len(task["metrics"]["successes"]) == 2
    assert task["metrics"]["sum_rewards"] == [float(success) for success in task["metrics"]["successes"]]
    for name in task["metrics"]["video_paths"]:
        with av.open(str(tmp_path / name)) as video:
            (stream,) = video.streams.video
            assert (stream.width, stream.height, stream.average_rate) == (192, 192, 10)
            assert 0 < stream.frames <= 12
