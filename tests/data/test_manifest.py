"""Manifests: what a site may train on, and what nobody may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from zk0.data.manifest import MANIFESTS, Manifest, check_disjoint, read_manifest, read_manifests, write_manifest
from zk0.errors import DataError
from zk0.files import read_json, write_json

TOP = "observation.images.top"


def make(site: str = "a", partition: int = 0, **changes: Any) -> Manifest:
    content: dict[str, Any] = {
        "site": site,
        "partition": partition,
        "role": "site",
        "source": "local:cubes",
        "revision": "5d41",
        "repo_id": "cubes",
        "root": "cubes",
        "robot_type": "so101_follower",
        "fps": 10,
        "cameras": (TOP,),
        "camera_sources": {TOP: TOP},
        "image_shapes": {TOP: (3, 96, 96)},
        "joints": ("gripper",),
        "tasks": ("touch the red cube",),
        "train_episodes": (0, 1),
        "held_out_episodes": (2,),
        "train_frames": 20,
        "held_out_frames": 10,
        "episode_digests": {0: "x", 1: "y", 2: "z"},
        "digest": "d",
    }
    return Manifest.model_validate(content | changes)


def test_manifest_comes_back(tmp_path: Path) -> None:
    manifest = make()

    write_manifest(tmp_path, manifest)

    assert read_manifest(tmp_path / MANIFESTS / "a.json") == manifest


def test_what_is_told_leaves_the_episodes_digests_at_home() -> None:
    told = make().content()

    assert "episode_digests" not in told and told["train_episodes"] == [0, 1] and told["digest"] == "d"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"held_out_episodes": (1, 2)},
            r"partition 'a': held-out episodes \[1\] are also trained on; run `zk0 prepare`",
        ),
        ({"train_episodes": ()}, "partition 'a' is empty: it has no training episode"),
        ({"held_out_episodes": ()}, "held_out_episodes"),
        ({"role": "guest"}, "role"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_manifest_that_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make(**changes)


def test_unseen_tasks_need_no_training_episode() -> None:
    assert make(role="unseen", partition=-1, train_episodes=(), train_frames=0).role == "unseen"


def test_overlap_written_into_a_file_is_refused_with_its_name(tmp_path: Path) -> None:
    write_manifest(tmp_path, make())
    path = tmp_path / MANIFESTS / "a.json"
    content = read_json(path)
    content["held_out_episodes"] = [1]
    write_json(path, content)

    with pytest.raises(DataError, match=r"a\.json: content: partition 'a': held-out episodes \[1\] are also"):
        read_manifest(path)


def test_field_that_is_wrong_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", make().model_dump(mode="json") | {"fps": "fast"})

    with pytest.raises(DataError, match=r"a\.json: fps is 'fast': expected a valid "):
        read_manifest(tmp_path / "a.json")


def test_missing_manifest_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nobody\.json not found; `zk0 prepare` writes it"):
        read_manifest(tmp_path / "nobody.json")
    with pytest.raises(DataError, match="holds no site's manifest; run `zk0 prepare`"):
        read_manifests(tmp_path)


def test_sites_come_in_partition_order_and_unseen_apart(tmp_path: Path) -> None:
    for manifest in (
        make("a", 1),
        make("b", 0, train_episodes=(3,), held_out_episodes=(4,)),
        make("c", -1, role="unseen"),
    ):
        write_manifest(tmp_path, manifest)

    sites, unseen = read_manifests(tmp_path)

    assert [manifest.site for manifest in sites] == ["b", "a"]
    assert [manifest.site for manifest in unseen] == ["c"]


@pytest.mark.parametrize("shared", [{"train_episodes": (5, 1)}, {"train_episodes": (5,), "held_out_episodes": (0, 1)}])
def test_sites_that_share_an_episode_are_refused(tmp_path: Path, shared: dict[str, Any]) -> None:
    one, other = make("a", 0), make("b", 1, **({"held_out_episodes": (6,)} | shared))
    for manifest in (one, other):
        write_manifest(tmp_path, manifest)

    with pytest.raises(DataError, match=r"partitions 'a' and 'b' overlap: both hold episodes \[(0, )?1\]"):
        read_manifests(tmp_path)


def test_a_thousand_sites_are_compared_in_one_pass() -> None:
    """Each episode number is looked at once: the numbers count how often they are hashed."""
    hashed = 0

    class Counted(int):
        def __hash__(self) -> int:
            nonlocal hashed
            hashed += 1
            return int(self)

    def site(number: int) -> Manifest:
        train, held_out = ((Counted(3 * number), Counted(3 * number + 1)), (Counted(3 * number + 2),))
        return make(f"s{number}", number).model_copy(update={"train_episodes": train, "held_out_episodes": held_out})

    sites = [site(number) for number in range(1000)]

    check_disjoint(sites)

    assert hashed < 10 * 3000


def test_equal_numbers_of_other_datasets_are_no_overlap() -> None:
    check_disjoint([make("a", 0), make("b", 1, root="balls")])
    check_disjoint([make("a", 0), make("b", 1, revision="77aa")])
