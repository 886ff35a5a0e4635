"""Sites whose joint values are written otherwise: turned into degrees by params, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from real_sites import MAIN, STEPS, Prepare, all_frames, episodes, refusal
from so100_recordings import (
    RANGES,
    as_old_lerobot,
    calibration_file,
    files_of,
    motor_steps,
    next_states,
    write_v3,
)

from zk0.data.manifest import MANIFESTS, read_manifests
from zk0.files import read_json
from zk0.params import parse_params
from zk0.sources_lock import resolve_sources


def test_sites_in_degrees_are_taken_as_they_are(tmp_path: Path, run: Prepare) -> None:
    run({"here": "degrees", "there": "so100"})

    here, there = read_manifests(tmp_path)[0]
    assert (here.convention, here.joint_map) == (there.convention, there.joint_map) == ("degrees", None)
    assert (here.robot_type, there.robot_type) == ("so101_follower", "so100_follower")
    assert all_frames(there, tmp_path).states.tolist() == np.concatenate(episodes(1, "degrees")).tolist()


def test_mixed_conventions_are_refused_with_both_named(tmp_path: Path, run: Prepare) -> None:
    message = refusal(run, {"here": "degrees", "there": "normalised"})

    assert message.startswith("'there' is certainly normalised")
    assert message.endswith("'here' is degrees, by the data")
    assert not (tmp_path / MANIFESTS).exists()


def test_every_site_of_which_params_must_say_more_is_named(run: Prepare) -> None:
    message = refusal(run, {"a": "old", "b": "normalised", "c": "degrees"})

    assert "data.conventions: {a: so100-old}" in message and "data.conventions: {b: normalised}" in message
    assert "'c' is degrees, by the data" in message


def test_three_conventions_become_one(tmp_path: Path, run: Prepare, library: Path) -> None:
    calibration_file(tmp_path / "arm.json")
    before = {name: files_of(library / name) for name in ("normalised", "old")}

    run(
        {"a": "degrees", "b": "normalised", "c": "old"},
        conventions={"b": "normalised", "c": "so100-old"},
        calibrations={"b": "arm.json"},
    )

    a, b, c = (all_frames(manifest, tmp_path) for manifest in read_manifests(tmp_path)[0])
    assert np.allclose(a.states, np.concatenate(episodes(0, "degrees")))
    assert np.allclose(b.states, np.concatenate(episodes(1, "degrees")), atol=1e-4)
    assert np.allclose(b.actions, np.concatenate([next_states(one) for one in episodes(1, "degrees")]), atol=1e-4)
    assert np.allclose(c.states[:, :5], (np.concatenate(STEPS[2])[:, :5] - 2048) * 180 / 2048, atol=1e-4)
    assert {name: files_of(library / name) for name in before} == before
    lock = read_json(tmp_path / "sources.lock.json")
    calibration_file(tmp_path / "arm.json", RANGES | {"gripper": (2000, 3000)})
    assert lock != resolve_sources(
        parse_params(
            {
                "policy": {"base": "random:nano"},
                "data": {
                    "sites": {name: entry["source"] for name, entry in lock["sources"].items()},
                    "conventions": {"b": "normalised", "c": "so100-old"},
                    "calibrations": {"b": "arm.json"},
                },
            }
        ),
        tmp_path,
    )


def test_one_recording_under_two_conventions_is_other_data(tmp_path: Path, run: Prepare) -> None:
    run({"b": "normalised"}, conventions={"b": "normalised"}, calibrations={"b": "measured"})
    measured = read_manifests(tmp_path)[0][0]
    ranges = {joint: (high - low) * 360 / 4095 + 0.3 for joint, (low, high) in RANGES.items() if joint != "gripper"}
    run({"b": "normalised"}, conventions={"b": "normalised"}, calibrations={"b": ranges | {"wrist_roll": 360.0}})

    assert read_manifests(tmp_path)[0][0].digest != measured.digest


def test_a_calibration_file_that_is_not_there_is_found_out_first(tmp_path: Path, run: Prepare) -> None:
    with pytest.raises(ValueError, match=r"data\.sites\.b: the calibration file .*arm\.json \(data\.calibrations\)"):
        run({"b": "normalised"}, conventions={"b": "normalised"}, calibrations={"b": "arm.json"})


def test_sites_dealt_from_one_source_share_what_is_said_of_it(tmp_path: Path, run: Prepare, library: Path) -> None:
    write_v3(tmp_path / "many", [as_old_lerobot(motor_steps(13, k)) for k in range(4)], robot_type="so100", names=MAIN)

    run({"lab": str(tmp_path / "many")}, conventions={"lab": "so100-old"}, partition={"scheme": "equal", "sites": 2})

    assert [m.convention for m in read_manifests(tmp_path)[0]] == ["so100-old"] * 2
    assert all(m.joint_map is not None for m in read_manifests(tmp_path)[0])
