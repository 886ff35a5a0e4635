"""A week as data: who is there, what is recorded by when, and that no held-out episode was ever trained on."""

from __future__ import annotations

from typing import Any

import pytest
from nights_params import WEEK

from zk0.data.manifest import Manifest
from zk0.errors import StageError
from zk0.params import Params, parse_params
from zk0.study.project import refuse_leakage
from zk0.study.week import Night, Week, week_of


@pytest.fixture
def week() -> Week:
    return week_of(parse_params(WEEK), 3)


def manifest(name: str, source: str) -> Manifest:
    """Of ten episodes, of which the third, sixth and ninth are held out."""
    told: dict[str, Any] = {
        "site": name,
        "partition": 0,
        "role": "site",
        "source": source,
        "revision": "",
        "repo_id": name,
        "root": name,
        "robot_type": "so101",
        "fps": 10,
        "cameras": (),
        "camera_sources": {},
        "image_shapes": {},
        "joints": (),
        "tasks": ("do",),
        "train_episodes": (0, 1, 3, 4, 6, 7, 9),
        "held_out_episodes": (2, 5, 8),
        "train_frames": 7,
        "held_out_frames": 3,
        "episode_digests": {episode: f"{name}-{episode}" for episode in range(10)},
        "digest": name,
    }
    return Manifest.model_validate(told)


@pytest.fixture
def world(week: Week) -> dict[str, Manifest]:
    return {name: manifest(name, source) for name, source in week.owners.items()}


def as_prepared(params: Params, world: dict[str, Manifest]) -> list[Manifest]:
    """What `zk0 prepare` makes of a night's params: an episode keeps its side, and nothing of the unseen trains."""
    found = []
    for name in (*params.data.sites, *params.data.unseen):
        out, whole = params.data.leave_out.get(name, ()), world[name]
        train = [episode for episode in whole.train_episodes if episode not in out]
        held_out = [episode for episode in whole.held_out_episodes if episode not in out]
        changes = {"train_episodes": train, "held_out_episodes": held_out}
        if name in params.data.unseen:
            changes = {"role": "unseen", "train_episodes": [], "held_out_episodes": sorted([*train, *held_out])}
        found.append(Manifest.model_validate(whole.model_dump() | changes))
    return found


def params_by_night(week: Week, world: dict[str, Manifest]) -> list[tuple[Night, Params]]:
    return [(night, week.params_of(night, world, "local:spoiled")) for night in week.nights]


def test_who_is_there_and_what_befalls_them(week: Week) -> None:
    assert list(week.owners) == ["red-a", "red-b", "green", "bar-a", "bar-b", "disc", "purple"]
    assert (week.joiner, week.leaver, week.liar, week.spoiled) == ("purple", "disc", "red-b", "red-a")
    assert [night.event for night in week.nights] == ["begin", "join", "nothing", "lie", "leave", "spoil", "mend"]
    assert ["purple" in night.sites for night in week.nights] == [False] + [True] * 6
    assert ["disc" in night.sites for night in week.nights] == [True] * 4 + [False] * 3
    assert all(night.sites[1] == week.liar for night in week.nights)
    assert week.params.seed == 3 and week.params.federation.strategy == "multi-krum"


def test_what_is_forgotten_is_measured_since_an_owner_was_last_there(week: Week) -> None:
    nights = {source.removeprefix("sim:"): week.last_with(source) for source in week.tasks}

    assert nights == {
        "push-red-cube-left": 1,
        "push-green-ball-right": 1,
        "pull-blue-bar": 1,
        "press-magenta-disc": 4,
        "push-purple-cylinder-left": 2,
    }


def test_a_night_is_of_who_is_there_and_nothing_is_new_once(week: Week, world: dict[str, Manifest]) -> None:
    nights = params_by_night(week, world)

    assert [set(week.owners) - {*params.data.sites, *params.data.unseen} for _, params in nights][3:5] == [
        set(),
        {"disc"},
    ]
    assert [list(params.data.unseen) for _, params in nights] == [["purple"]] + [[]] * 6
    same = [nights[n][1] == nights[n + 1][1] for n in range(6)]
    assert same == [False, True, False, False, False, False]
    spoilt = [params.data.sites.get("red-a") for _, params in nights]
    assert spoilt[5] == "local:spoiled" and set(spoilt[:5]) == {"sim:push-red-cube-left"} == {spoilt[6]}
    assert "red-a" not in nights[5][1].data.leave_out


def test_recordings_grow_and_nothing_trained_on_is_ever_judged_on(week: Week, world: dict[str, Manifest]) -> None:
    trained: list[int] = []
    for night, params in params_by_night(week, world):
        manifests = as_prepared(params, world)
        sites = [one for one in manifests if one.role == "site"]
        refuse_leakage(week.trained_on(night, world), manifests)
        refuse_leakage([(one, one.train_episodes) for one in sites], manifests)
        trained.append(next(len(one.train_episodes) for one in sites if one.site == "green"))
    assert trained == [1, 2, 2, 4, 4, 5, 7]


@pytest.mark.parametrize(
    "change", [{"unseen": {}}, {"sites": {"mine": "local:mine"}}, {"partition": {"scheme": "equal", "sites": 2}}]
)
def test_what_no_week_can_be_made_of_is_said(change: dict[str, Any]) -> None:
    content = WEEK | {"data": WEEK["data"] | change}
    if "partition" in change:
        content["data"]["sites"] = {"red": "sim:push-red-cube-left"}

    with pytest.raises(StageError, match="the study of nights records every task anew"):
        week_of(parse_params(content), 1)
