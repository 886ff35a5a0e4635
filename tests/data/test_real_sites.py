"""Sites as robot owners have them: formats, the report, and what params may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_sites import Prepare, all_frames, refusal, source
from so100_recordings import (
    as_old_lerobot,
    motor_steps,
    write_v21,
)

from zk0.data.conventions import CONVENTION_KEY
from zk0.data.dataset import DatasetFolder
from zk0.data.manifest import read_manifests
from zk0.params import ParamsError, parse_params


def test_v21_is_refused_with_the_command_that_converts_it(run: Prepare, tmp_path: Path) -> None:
    old = write_v21(tmp_path / "old", [as_old_lerobot(motor_steps(6))])

    assert f"`zk0 data convert local:{old} FOLDER`" in refusal(run, {"here": str(old)})


def test_v21_converted_is_a_site(run: Prepare, tmp_path: Path) -> None:
    from zk0.data.convert import convert_dataset

    old = write_v21(tmp_path / "old", [as_old_lerobot(motor_steps(14, k)) for k in range(2)])
    convert_dataset(old, tmp_path / "new")

    run({"here": str(tmp_path / "new")}, fps=30, conventions={"here": "so100-old"})

    frames = all_frames(read_manifests(tmp_path)[0][0], tmp_path)
    assert np.allclose(frames.states[0, :5], (motor_steps(14, 0)[0, :5] - 2048) * 180 / 2048, atol=1e-4)


def test_the_report_says_what_was_found_and_what_it_was_taken_for(tmp_path: Path, run: Prepare) -> None:
    run(
        {"a": "degrees", "c": "old"},
        conventions={"c": "so100-old"},
        cameras={"c": {"top": "wrist", "wrist": "top"}},
    )

    text = (tmp_path / "results" / "data.md").read_text()
    first, second = text.split("## c\n")
    assert "| joints | degrees, by the data |" in first
    assert "of 360/4095 (degrees)" in first
    assert "| joints | so100-old, by params, converted to degrees |" in second
    assert "joints are named main_* on a robot of type so100, as by LeRobot before June 2025" in second
    assert "| camera | wrist as top, 32x32 |" in second
    assert "| recorded | 2 episodes, 29 frames; lift the cube, drop the cube |" in second
    entry = source(tmp_path, "c")
    assert entry["joints"]["map"] == {"scale": [1, -1, 1, 1, 1, 1], "offset": [0, 90, -90, 0, 0, 0]}


def test_simulated_recordings_say_their_convention(recorded: Path) -> None:
    features = DatasetFolder(recorded, "x").info.features

    assert features["action"].info == features["observation.state"].info == {CONVENTION_KEY: "degrees"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"every": {"ther": 2}}, "every names 'ther', which is neither a site nor unseen; did you mean 'there'?"),
        ({"conventions": {"x": "degrees"}}, "conventions names 'x', which is neither a site nor unseen"),
        ({"cameras": {"x": {"top": "wrist"}}}, "cameras names 'x', which is neither a site nor unseen"),
        ({"every": {"there": 0}}, "every 'there' is 0; it takes every n-th frame, so it must be 1 or more"),
        ({"calibrations": {"there": "measured"}}, "say conventions: {there: normalised} as well"),
        ({"calibrations": {"there": {"shoulder_pan": 200.0}}}, "'there' has no range for shoulder_lift, elbow_flex"),
        ({"calibrations": {"there": {"sholder_pan": 200.0}}}, "did you mean 'shoulder_pan'?"),
        (
            {
                "calibrations": {
                    "there": dict.fromkeys(
                        ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll"), 400.0
                    )
                }
            },
            "a range is above 0 and up to 360 degrees",
        ),
        ({"missing_cameras": "ignore"}, "missing_cameras"),
        ({"conventions": {"there": "radians"}}, "conventions.there"),
    ],
)
def test_params_that_cannot_be(data: dict[str, Any], said: str) -> None:
    content = {"policy": {"base": "random:nano"}, "data": {"sites": {"there": "local:x"}, **data}}

    with pytest.raises(ParamsError) as refused:
        parse_params(content)

    assert said in str(refused.value)
