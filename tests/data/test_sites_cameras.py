"""Sites whose cameras have other names or another number: mapped by params, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from real_sites import TOP, WRIST, Prepare, all_frames, refusal, source

from zk0.data.dataset import DatasetFolder
from zk0.data.manifest import read_manifests


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
