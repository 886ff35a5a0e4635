"""Sites as robot owners have them: other cameras, rates and joint conventions, mapped by params or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from so100_recordings import (
    RANGES,
    as_lerobot,
    as_old_lerobot,
    calibration_file,
    files_of,
    motor_steps,
    next_states,
    write_v3,
    write_v21,
)

from zk0.data.conventions import CONVENTION_KEY
from zk0.data.dataset import DatasetFolder
from zk0.data.joints import JOINTS
from zk0.data.load import load_frames
from zk0.data.manifest import MANIFESTS, Manifest, read_manifests
from zk0.errors import DataError
from zk0.files import read_json, write_json
from zk0.params import Params, ParamsError, parse_params
from zk0.resolve import resolve_sources
from zk0.stages import prepare

TOP, WRIST = "observation.images.top", "observation.images.wrist"
STEPS = [[motor_steps(frames, 10 * site + k) for k, frames in enumerate((16, 13))] for site in range(3)]
LENGTHS = [16, 13]
MAIN = [f"main_{joint}" for joint in JOINTS]

Prepare = Callable[..., Params]


def episodes(site: int, mode: str) -> list[np.ndarray]:
    return [as_lerobot(steps, mode) for steps in STEPS[site]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets of three owners, by what they are; read only."""
    root = tmp_path_factory.mktemp("owners")
    write_v3(root / "degrees", episodes(0, "degrees"))
    write_v3(root / "so100", episodes(1, "degrees"), robot_type="so100_follower")
    write_v3(root / "normalised", episodes(1, "range_m100_100"))
    write_v3(root / "old", [as_old_lerobot(steps) for steps in STEPS[2]], robot_type="so100", names=MAIN)
    write_v3(
        root / "other-cameras",
        episodes(1, "degrees"),
        cameras={"overhead": (48, 64), "hand": (32, 32), "side": (32, 32)},
    )
    write_v3(root / "one-camera", episodes(1, "degrees"), cameras=["top"])
    write_v3(root / "fast", episodes(1, "degrees"), fps=30)
    write_v3(root / "odd", episodes(1, "degrees"), fps=25)
    write_v3(root / "pictures", episodes(1, "degrees"), use_videos=False)
    return root


@pytest.fixture
def run(tmp_path: Path, library: Path) -> Prepare:
    """Resolves and prepares in ``tmp_path``: ``run({site: dataset}, **data)``."""

    def prepare_project(sites: dict[str, str], **data: Any) -> Params:
        named = {name: f"local:{library / folder}" for name, folder in sites.items()}
        params = parse_params({"threads": 1, "policy": {"base": "random:nano"}, "data": {"sites": named, **data}})
        write_json(tmp_path / "sources.lock.json", resolve_sources(params, tmp_path))
        prepare.run(tmp_path, params)
        return params

    return prepare_project


def refusal(run: Prepare, sites: dict[str, str], **data: Any) -> str:
    with pytest.raises(DataError) as refused:
        run(sites, **data)
    return str(refused.value)


def all_frames(manifest: Manifest, root: Path) -> Any:
    return load_frames(manifest, root, (*manifest.train_episodes, *manifest.held_out_episodes), 0)


def source(root: Path, name: str) -> dict[str, Any]:
    (entry,) = [entry for entry in read_json(root / "results" / "data.json")["sources"] if entry["name"] == name]
    return dict(entry)


# Cameras


def test_each_site_may_name_its_cameras_otherwise(tmp_path: Path, run: Prepare) -> None:
    run(
        {"here": "degrees", "there": "other-cameras"},
        cameras={"there": {"overhead": "top", "hand": "wrist", "side": None}},
    )

    here, there = read_manifests(tmp_path)[0]
    assert here.cameras == there.cameras == (TOP, WRIST)
    assert there.camera_sources == {TOP: "observation.images.overhead", WRIST: "observation.images.hand"}
    assert there.image_shapes[TOP] == (3, 48, 64)
    assert source(tmp_path, "there")["left_out"] == ["observation.images.side"]
    frames = all_frames(there, tmp_path)
    own = DatasetFolder(Path(there.root), "x").decode(0, "observation.images.hand", [0.0])
    assert torch.equal(frames.images.read(WRIST, np.array([0])), own.to(torch.float32) / 255)
    assert frames.images.read(TOP, np.array([0])).shape == (1, 3, 48, 64)


def test_names_for_all_sites_and_for_one(tmp_path: Path, run: Prepare) -> None:
    names = {"top": "camera1", "wrist": "camera2", "there": {"overhead": "camera1", "hand": "camera2", "side": None}}
    run({"here": "degrees", "there": "other-cameras"}, cameras=names)

    here, there = read_manifests(tmp_path)[0]
    assert here.cameras == there.cameras == ("observation.images.camera1", "observation.images.camera2")


def test_a_camera_too_many_is_refused_unless_params_leave_it_out(run: Prepare) -> None:
    sites = {"here": "degrees", "there": "other-cameras"}

    message = refusal(run, sites, cameras={"there": {"overhead": "top", "hand": "wrist"}})

    assert (
        "'there' has cameras observation.images.side, observation.images.top, observation.images.wrist, 'here'"
        in message
    )
    assert "leave one out (THEIRS: null)" in message


def test_a_camera_missing_is_refused_unless_params_hide_it(tmp_path: Path, run: Prepare) -> None:
    sites = {"here": "degrees", "there": "one-camera"}

    assert "(data.missing_cameras: empty)" in refusal(run, sites)
    run(sites, missing_cameras="empty")

    assert [m.cameras for m in read_manifests(tmp_path)[0]] == [(TOP, WRIST), (TOP,)]
    assert "| camera | wrist is missing: hidden from the policy |" in (tmp_path / "results" / "data.md").read_text()


def test_a_camera_that_is_not_there_is_no_name(run: Prepare) -> None:
    assert "data.cameras of 'here' names 'wirst', but" in (
        message := refusal(run, {"here": "degrees"}, cameras={"here": {"wirst": "wrist"}})
    )
    assert message.endswith("did you mean 'wrist'?")


def test_a_policy_that_sees_needs_a_camera(run: Prepare) -> None:
    assert "data.cameras leaves out every camera of 'here'" in refusal(
        run, {"here": "degrees"}, cameras={"top": None, "wrist": None}
    )


def test_pictures_in_tables_are_refused_with_the_command(run: Prepare, library: Path) -> None:
    message = refusal(run, {"here": "pictures"})

    assert "observation.images.top is kept as image; video was expected" in message
    assert f"--root {library / 'pictures'} --new_root FOLDER --operation.type convert_image_to_video" in message


# Frame rates


def test_a_site_that_records_faster_is_refused_until_params_say_so(run: Prepare, library: Path) -> None:
    message = refusal(run, {"here": "degrees", "there": "fast"})

    assert message == (
        f"{library / 'fast'} has 30 frames per second, the federation 10 (data.fps): to take one frame in 3 of it, say "
        "data.every: {there: 3}"
    )


def test_one_frame_in_three_is_what_a_slower_recorder_would_have_written(tmp_path: Path, run: Prepare) -> None:
    run({"here": "degrees", "there": "fast"}, every={"there": 3})

    _, there = read_manifests(tmp_path)[0]
    assert (there.fps, there.every) == (10, 3)
    frames = all_frames(there, tmp_path)
    taken = [states[::3] for states in episodes(1, "degrees")]
    commands = [next_states(states)[::3] for states in episodes(1, "degrees")]
    assert frames.states.tolist() == np.concatenate(taken).tolist()
    assert frames.actions.tolist() == np.concatenate(commands).tolist()
    assert len(frames) == there.train_frames + there.held_out_frames == 6 + 5
    assert frames.last.tolist() == [5] * 6 + [10] * 5
    own = DatasetFolder(Path(there.root), "x")
    for row, (episode, frame) in {1: (0, 3), 5: (0, 15), 7: (1, 3)}.items():
        picture = own.decode(episode, TOP, [frame / 30])
        assert torch.equal(frames.images.read(TOP, np.array([row])), picture.to(torch.float32) / 255)
    assert source(tmp_path, "there")["fps"] == {"recorded": 30.0, "every": 3, "taken": 10.0}


def test_another_stride_is_other_data(tmp_path: Path, run: Prepare) -> None:
    run({"there": "fast"}, every={"there": 3})
    slow = read_manifests(tmp_path)[0][0]
    slow_clips = all_frames(slow, tmp_path).clips()
    run({"there": "fast"}, fps=30)
    fast = read_manifests(tmp_path)[0][0]

    assert slow.digest != fast.digest and slow.episode_digests == fast.episode_digests
    assert slow_clips[0].digests != all_frames(fast, tmp_path).clips()[0].digests


@pytest.mark.parametrize(
    ("folder", "every", "said"),
    [
        ("fast", 2, "to take one frame in 3 of it, say data.every: {there: 3}, not 2"),
        ("degrees", 3, "take there out of data.every, which says 3 for it"),
        ("odd", 1, "frames between frames cannot be made up; choose a data.fps of which every site's rate is a whole"),
    ],
)
def test_other_rates_are_never_mixed(run: Prepare, folder: str, every: int, said: str) -> None:
    assert said in refusal(run, {"there": folder}, every={"there": every})


def test_a_rate_that_the_timestamps_belie(run: Prepare, library: Path, tmp_path: Path) -> None:
    import json
    import shutil

    liar = Path(shutil.copytree(library / "fast", tmp_path / "liar"))
    info = json.loads((liar / "meta" / "info.json").read_text())
    (liar / "meta" / "info.json").write_text(json.dumps(info | {"fps": 10}))

    assert "frames of episode 0 are 0.0333 s apart, and 10 frames per second would be 0.1000" in refusal(
        run, {"there": str(liar)}
    )


# Joint conventions


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


# Formats


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


# The report


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
    features = DatasetFolder(recorded, "x").info["features"]

    assert features["action"]["info"] == features["observation.state"]["info"] == {CONVENTION_KEY: "degrees"}


# Params


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
