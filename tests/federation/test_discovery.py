"""The sites' data against the policy and each other's; pictures of any size reach the policy unstretched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from policy_on_frames import flow_loss

from zk0.data.frames import Frames, MemoryImages
from zk0.data.manifest import Manifest
from zk0.federation.discovery import check_alike, check_cameras, misfits
from zk0.federation.server import FederationError
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.prefix import embed_images

TOP, WRIST, SIDE = (f"observation.images.{name}" for name in ("top", "wrist", "side"))


def manifest(*cameras: str, shape: tuple[int, int, int] = (3, 96, 96)) -> Manifest:
    return Manifest.model_construct(site="lab", cameras=cameras, image_shapes=dict.fromkeys(cameras, shape))


def refusal(loaded: LoadedPolicy, *manifests: Manifest, missing: str = "refuse") -> str:
    with pytest.raises(FederationError) as refused:
        check_cameras(manifests, loaded, missing)
    return str(refused.value)


def site(name: str, **changes: Any) -> Manifest:
    known = {"robot_type": "so101_follower", "fps": 10, "joints": ("a", "b")}
    return Manifest.model_construct(site=name, **(known | changes))


def test_arms_of_either_kind_train_together() -> None:
    check_alike([site("lab"), site("home", robot_type="so100"), site("school", robot_type="so_follower")])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fps": 30}, "sites 'lab' and 'home' have other frames per second: 10 and 30"),
        ({"robot_type": "koch_follower"}, "have other robots: SO-100/SO-101 and koch_follower"),
        ({"joints": ("b", "a")}, "have other joints: "),
    ],
)
def test_sites_that_one_model_cannot_serve(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(FederationError, match=said):
        check_alike([site("lab"), site("home", **changes)])


def test_the_usual_arm_is_that_of_most_and_of_as_many_that_of_the_lowest_number(loaded: LoadedPolicy) -> None:
    arms = {2: 10, 3: 30, 5: 30, 6: 10, 8: 50}
    sites = {number: site(f"site-{number}", fps=fps, cameras=(TOP, WRIST)) for number, fps in arms.items()}

    found = misfits(sites, loaded, "refuse")

    assert list(found) == [3, 5, 8]
    assert found[8].startswith("most sites have other frames per second: 10 and 50; a federation trains one kind")
    assert list(misfits(sites | {9: site("site-9", fps=30, cameras=(TOP, WRIST))}, loaded, "refuse")) == [2, 6, 8]
    assert misfits({}, loaded, "refuse") == {}


def test_the_policys_cameras_pass(loaded: LoadedPolicy) -> None:
    check_cameras([manifest(TOP, WRIST), manifest(WRIST, TOP, shape=(3, 480, 640))], loaded, "refuse")


def test_a_camera_that_the_policy_does_not_know(loaded: LoadedPolicy) -> None:
    message = refusal(loaded, manifest(TOP, WRIST, SIDE), missing="empty")

    assert f"site 'lab' has cameras {SIDE}, which the policy does not know; it knows {TOP}, {WRIST}" in message
    assert "(data.cameras: {lab: {side: POLICY'S}}), or leave them out (side: null)" in message


def test_a_camera_that_is_missing(loaded: LoadedPolicy) -> None:
    message = refusal(loaded, manifest(TOP, WRIST), manifest(TOP))

    assert f"site 'lab' has no camera {WRIST}, which the policy knows; it has {TOP}" in message
    assert "(data.missing_cameras: empty)" in message
    check_cameras([manifest(TOP)], loaded, "empty")


def test_a_camera_that_nobody_has_by_the_policys_own_word(
    loaded: LoadedPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = loaded.policy.config.input_features
    monkeypatch.setitem(features, "observation.images.empty_camera_0", features[TOP])

    check_cameras([manifest(TOP, WRIST)], loaded, "refuse")


def test_a_policy_that_does_not_resize_takes_one_size(loaded: LoadedPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded.policy.config, "resize_imgs_with_padding", None)
    check_cameras([manifest(TOP, WRIST)], loaded, "refuse")

    message = refusal(loaded, manifest(TOP, WRIST, shape=(3, 480, 640)))

    assert f"site 'lab': {TOP} is 480x640, and the policy, which does not resize" in message
    assert "takes 96x96; record that size" in message


@pytest.mark.parametrize("size", [(48, 64), (120, 160), (192, 96), (96, 96)])
def test_pictures_keep_their_proportions(loaded: LoadedPolicy, size: tuple[int, int]) -> None:
    """A white square in the middle of a grey picture is a square in what the network reads, whatever the picture is."""
    height, width = size
    side = min(size) // 2
    picture = torch.full((1, 3, height, width), 0.5)
    rows, columns = slice((height - side) // 2, (height + side) // 2), slice((width - side) // 2, (width + side) // 2)
    picture[:, :, rows, columns] = 1.0

    (prepared, *_), _ = loaded.policy.prepare_images({TOP: picture})

    assert prepared.shape[-2:] == (96, 96)
    white = prepared[0, 0] > 0.6  # from 0 to 1 it became -1 to 1
    tall, wide = int(white.any(dim=1).sum()), int(white.any(dim=0).sum())
    assert abs(tall - wide) <= 1 and tall == pytest.approx(side * 96 / max(size), abs=1.5)


def test_tokens_are_of_what_the_policy_itself_prepares(loaded: LoadedPolicy) -> None:
    picture = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))

    (prepared, *_), _ = loaded.policy.prepare_images({TOP: picture, WRIST: picture})

    expected = loaded.policy.model.vlm_with_expert.embed_image(prepared)
    assert torch.equal(embed_images(loaded.policy, {TOP: picture})[0], expected)


def test_a_site_with_one_camera_trains_as_lerobot_would(loaded: LoadedPolicy, frames: Frames) -> None:
    """LeRobot's own forward pass on the pictures that are there, against the split one."""
    images = MemoryImages({WRIST: np.random.default_rng(1).integers(0, 256, (len(frames), 48, 64, 3), dtype=np.uint8)})
    one_eyed = replace(frames, images=images)
    rows = np.array([0, 5, 9])
    config = loaded.policy.config
    draws = torch.Generator().manual_seed(3)
    noise = torch.randn(3, config.chunk_size, config.max_action_dim, generator=draws)
    times = torch.rand(3, generator=draws)

    ours = flow_loss(loaded, one_eyed, rows, noise, times)
    theirs = loaded.policy(loaded.preprocess(one_eyed.batch(rows, loaded.chunk)), noise=noise, time=times)[0]

    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
