"""Joint conventions: what is found, what params must say, and what becomes of the values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from so100_recordings import RANGES, as_lerobot, as_old_lerobot, calibration_file, motor_steps

from zk0.data.conventions import CONVENTION_KEY, JointMap, Recording, find_convention, settle
from zk0.data.info import Feature
from zk0.data.readings import read_calibration
from zk0.errors import DataError
from zk0.so100 import ARM_JOINTS, FEATURE_NAMES, JOINTS

OLD_NAMES = tuple(f"main_{joint}" for joint in JOINTS)
STEPS = np.concatenate([motor_steps(60, seed) for seed in range(2)])
BOUNDS = {0: (0, 60), 1: (60, 120)}
SPANS = {joint: (RANGES[joint][1] - RANGES[joint][0]) * 360 / 4095 for joint in ARM_JOINTS}


def recording(states: np.ndarray, **changes: Any) -> Recording:
    content: dict[str, Any] = {
        "features": {},
        "names": FEATURE_NAMES,
        "robot_type": "so101_follower",
        "states": states,
        "bounds": BOUNDS,
    }
    return Recording(**content | changes)


DEGREES = recording(as_lerobot(STEPS, "degrees"))
NORMALISED = recording(as_lerobot(STEPS, "range_m100_100"))
OLD = recording(as_old_lerobot(STEPS), names=OLD_NAMES, robot_type="so100")
NOISE = np.random.default_rng(1).normal(20, 30, (120, 6)).clip(0, 99)


def refusal(*arguments: Any) -> str:
    with pytest.raises(DataError) as refused:
        settle(*arguments, Path())
    return str(refused.value)


def test_degrees_that_show_need_no_word() -> None:
    found = settle("mine", None, None, DEGREES, Path())

    assert (found.convention, found.by, found.map) == ("degrees", "the data", None)
    assert "joints are named *.pos on a robot of type so101_follower" in found.reasons[0]


def test_degrees_that_the_recorder_noted_need_no_word() -> None:
    noted = Feature(dtype="float32", shape=[6], info={CONVENTION_KEY: "degrees"})
    simulated = recording(NOISE, features={"observation.state": noted, "action": noted})

    found = settle("mine", None, None, simulated, Path())

    assert found.convention == "degrees"
    assert found.reasons[0] == "its recorder noted degrees in meta/info.json"


def test_a_note_on_one_feature_only_is_none() -> None:
    noted = Feature(dtype="float32", shape=[6], info={CONVENTION_KEY: "degrees"})
    half = recording(NOISE, features={"action": noted})

    assert find_convention(half).convention is None


def test_normalised_is_refused_until_params_say_so() -> None:
    message = refusal("lab", None, None, NORMALISED)

    assert message.startswith("'lab' is certainly normalised, and another arm's numbers mean other angles (")
    assert "data.conventions: {lab: normalised} and data.calibrations: {lab: FILE}" in message
    assert "or {lab: measured}" in message


def test_old_degrees_are_refused_until_params_say_so() -> None:
    message = refusal("lab", None, None, OLD)

    assert message.startswith("'lab' is certainly in the degrees of LeRobot before June 2025 (")
    assert "joints are named main_* on a robot of type so100" in message
    assert message.endswith("data.conventions: {lab: so100-old}")


def test_old_names_alone_make_it_probable() -> None:
    assert refusal("lab", None, None, recording(NOISE, names=OLD_NAMES, robot_type="so100")).startswith(
        "'lab' is probably in the degrees of LeRobot before June 2025"
    )


def test_what_nothing_tells_of_is_refused_until_params_say_it() -> None:
    message = refusal("lab", None, None, recording(NOISE))

    assert "it is not certain how its joint values are written" in message
    assert "data.conventions: {lab: degrees}, or normalised, or so100-old" in message
    assert settle("lab", "degrees", None, recording(NOISE), Path()).by == "params"


def test_radians_are_named_and_not_converted() -> None:
    radians = np.deg2rad(NOISE)

    assert "as in radians, which zk0 does not convert" in refusal("lab", None, None, recording(radians))


def test_a_gripper_in_degrees_is_refused_until_params_say_that_all_is_well() -> None:
    states = DEGREES.states.copy()
    states[:, 5] = -45

    message = refusal("lab", None, None, recording(states))

    assert "the gripper goes from -45.0 to -45.0, and LeRobot writes 0 (closed) to 100 (open)" in message
    assert settle("lab", "degrees", None, recording(states), Path()).map is None


@pytest.mark.parametrize(
    ("said", "shown", "message"),
    [
        ("degrees", NORMALISED, "data.conventions says that 'lab' is degrees, but it is normalised: "),
        ("degrees", OLD, "data.conventions says that 'lab' is degrees, but it is so100-old: "),
        ("so100-old", DEGREES, "data.conventions says that 'lab' is so100-old, but it is degrees: "),
        ("normalised", OLD, "data.conventions says that 'lab' is normalised, but "),
    ],
)
def test_params_must_not_contradict_the_data(said: str, shown: Recording, message: str) -> None:
    assert refusal("lab", said, None, shown).startswith(message)


def test_normalised_values_end_at_100(tmp_path: Path) -> None:
    states = NOISE.copy()
    states[7, 1] = 109.0
    beyond = recording(states)

    assert "shoulder_lift reaches 109.0 and normalised values end at 100" in refusal(
        "lab", "normalised", str(calibration_file(tmp_path / "arm.json")), beyond
    )


def test_old_degrees_become_degrees_as_lerobot_says() -> None:
    """Its guide: shoulder_lift is turned round about 90, elbow_flex moved by 90."""
    found = settle("lab", "so100-old", None, OLD, Path())
    assert found.map is not None

    degrees = found.map.apply(OLD.states)

    assert np.allclose(degrees[:, :5], (STEPS[:, :5] - 2048) * 180 / 2048, atol=1e-4)
    assert np.array_equal(degrees[:, 5], OLD.states[:, 5])


def test_normalised_becomes_what_lerobot_reads_in_degrees(tmp_path: Path) -> None:
    file = calibration_file(tmp_path / "arm.json")

    found = settle("lab", "normalised", file.name, NORMALISED, tmp_path)
    assert found.map is not None

    assert np.allclose(found.map.apply(NORMALISED.states), DEGREES.states, atol=1e-4)
    assert found.reasons[-1] == "ranges from arm.json"


def test_an_inverted_joint_is_turned_back(tmp_path: Path) -> None:
    """LeRobot applies the drive mode to normalised values only, so in degrees the joint turns as its motor does."""
    file = calibration_file(tmp_path / "arm.json", elbow_flex=1)
    inverted = recording(as_lerobot(STEPS, "range_m100_100", elbow_flex=1))

    found = settle("lab", "normalised", str(file), inverted, tmp_path)
    assert found.map is not None

    assert np.allclose(found.map.apply(inverted.states), as_lerobot(STEPS, "degrees", elbow_flex=1), atol=1e-4)


def test_ranges_that_show_serve_without_a_file() -> None:
    found = settle("lab", "normalised", "measured", NORMALISED, Path())
    assert found.map is not None

    assert np.allclose(found.map.apply(NORMALISED.states), DEGREES.states, atol=1e-4)


@pytest.mark.parametrize("joint", ["elbow_flex", "wrist_roll"])
def test_ranges_that_do_not_show_need_a_file(joint: str) -> None:
    """Not even the wrist's is a whole turn for sure: LeRobot measured it on an SO-101 until the arms had one class."""
    states = NORMALISED.states.copy()
    states[:, JOINTS.index(joint)] = states[0, JOINTS.index(joint)]

    message = refusal("lab", "normalised", "measured", recording(states))

    assert f"data.calibrations {{lab: measured}}: the range of {joint} does not show in the values" in message
    assert "or {lab: measured}" not in refusal("lab", "normalised", None, recording(states))


def test_ranges_a_person_writes_may_be_rounded() -> None:
    rounded = {joint: round(span, 1) for joint, span in SPANS.items()}

    found = settle("lab", "normalised", rounded, NORMALISED, Path())
    assert found.map is not None

    assert np.allclose(found.map.apply(NORMALISED.states), DEGREES.states, atol=0.1)


def test_a_calibration_of_another_day_is_refused(tmp_path: Path) -> None:
    other = calibration_file(tmp_path / "arm.json", RANGES | {"wrist_flex": (930, 3265)})

    message = refusal("lab", "normalised", str(other), NORMALISED)

    assert (
        "gives wrist_flex a range of 205.3 degrees, but it was recorded with 204.4 (2325 steps of the motor)" in message
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "has no range_min and range_max for shoulder_pan"),
        (json.dumps({"shoulder_pan": {"range_min": 0, "range_max": 4095}}), "for shoulder_lift"),
        (json.dumps({joint: {"range_min": 9, "range_max": 9} for joint in ARM_JOINTS}), "shoulder_pan is 0 steps"),
    ],
)
def test_files_that_are_no_calibration(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "arm.json").write_text(content)

    with pytest.raises(DataError, match=said):
        read_calibration(tmp_path / "arm.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"arm\.json does not exist; LeRobot keeps them as ~/\.cache/"):
        read_calibration(tmp_path / "arm.json")


def test_episodes_that_are_not_written_alike_are_named() -> None:
    mixed = recording(np.concatenate([NORMALISED.states[:60], DEGREES.states[60:]]))

    message = refusal("lab", None, None, mixed)

    assert "its episodes are not written alike (0 to 0 normalised, 1 to 1 degrees): split them" in message


def test_an_arm_calibrated_anew_between_episodes_is_told() -> None:
    ranges = {joint: (low + 30, high) for joint, (low, high) in RANGES.items() if joint != "wrist_roll"}
    ranges["wrist_roll"] = RANGES["wrist_roll"]
    later = as_lerobot(STEPS[60:], "range_m100_100", ranges)
    still = np.concatenate([NORMALISED.states[:60], later])
    still[:, 4] = 0.0

    assert "the arm was calibrated anew in between" in refusal("lab", None, None, recording(still))


def test_a_map_is_applied_joint_by_joint() -> None:
    joint_map = JointMap(scale=(1, -1, 2, 1, 1, 1), offset=(0, 90, -90, 0, 0, 0))

    assert joint_map.apply(np.full((1, 6), 10.0)).tolist() == [[10, 80, -70, 10, 10, 10]]
    assert JointMap.model_validate(json.loads(joint_map.model_dump_json())) == joint_map
