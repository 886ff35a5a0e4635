"""Rooms: the same scenes, seen and driven otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from zk0.data.dataset import DatasetFolder
from zk0.data.recordings import record_source, recording_seed
from zk0.data.sim.expert import record_episode
from zk0.data.sim.rooms import FACTORS, NAMED, PLAIN, Room, room_of
from zk0.data.sim.simulation import HOME, Simulation
from zk0.data.sim.tasks import COLOURS, find_task
from zk0.params import parse_params
from zk0.sources import Source

MakeSim = Callable[..., Simulation]
LOOKS = ("camera place", "camera turn", "light", "table", "background", "object")
TASK = find_task("push-red-cube-left")


@pytest.fixture
def make_sim() -> Iterator[MakeSim]:
    """Makes simulations at their scene of seed 3, and closes them afterwards."""
    made: list[Simulation] = []

    def make(room: Room = PLAIN, share: Simulation | None = None) -> Simulation:
        made.append(Simulation(TASK, 64, share=share, room=room))
        made[-1].reset(3)
        return made[-1]

    yield make
    for sim in made:
        sim.close()


# -- what a room is --------------------------------------------------------------------------------


def test_a_number_is_one_room_and_no_other() -> None:
    rooms = [Room.of(number) for number in range(20)]

    assert rooms == [Room.of(number) for number in range(20)]
    assert len(set(rooms)) == 20 and PLAIN not in rooms
    assert repr(Room.of(0)).startswith("Room(camera_m=(-0.013147, -0.03616, 0.008496), camera_deg=(1.363122,")


def test_a_factor_alone_changes_its_own_fields_in_proportion() -> None:
    whole = asdict(Room.of(5))
    for factor, fields in FACTORS.items():
        half = asdict(Room.of(5, {factor: 0.5}))
        for field, plain in asdict(PLAIN).items():
            middle = (np.asarray(plain) + np.asarray(whole[field])) / 2
            np.testing.assert_allclose(half[field], middle if field in fields else plain, atol=1e-6)
    assert sorted(field for fields in FACTORS.values() for field in fields) == sorted(asdict(PLAIN))
    assert Room.of(5, dict.fromkeys(FACTORS, 0.0)) == Room.of(5, {}) == PLAIN


def test_rooms_stay_within_what_people_do() -> None:
    for number in range(200):
        room = Room.of(number)
        assert np.abs(room.camera_m).max() <= 0.04 and np.abs(room.camera_deg).max() <= 4
        assert (np.abs(room.joints) <= [4, 4, 4, 4, 8, 4]).all()
        assert min(room.light) >= 0.45 and max(room.light) <= 1.56
        assert min(np.linalg.norm(np.subtract(room.table, colour)) for colour in COLOURS.values()) > 0.25
        assert round(1 / room.frame_s) in (10, 15, 30) and 0 <= room.delay_s <= 0.05
        assert room.edges_m[0] >= 0.05 and min(room.edges_m[1:]) >= 0.45


def test_what_no_room_is_gets_refused() -> None:
    with pytest.raises(ValueError, match="no factor 'joint'; did you mean 'joints'"):
        Room.of(1, {"joint": 1.0})
    with pytest.raises(ValueError, match=r"from 0 to below 0.1 s, a control step \(got 0.1\)"):
        Room(delay_s=0.1)
    for number in (-1, NAMED):
        with pytest.raises(ValueError, match=rf"from 0 to 999999 \(got {number}\)"):
            room_of(number)


# -- what it shows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", LOOKS)
def test_looks_change_pictures_and_nothing_else(make_sim: MakeSim, factor: str) -> None:
    plain, room = make_sim(), make_sim(Room.of(1, {factor: 1.0}))
    for sim in (plain, room):
        for _ in range(5):
            sim.step(HOME)

    assert not np.array_equal(plain.render(), room.render())
    assert np.array_equal(plain.data.qpos, room.data.qpos)


def test_a_room_does_not_leak_into_anothers_pictures(make_sim: MakeSim) -> None:
    """Side by side, with shared models and contexts, each sees what it sees alone."""
    rooms = (PLAIN, Room.of(1), Room.of(2), Room.of(1, {"object": 1.0}))
    alone = [make_sim(room).render() for room in rooms]
    first = make_sim()
    beside = [make_sim(room, first) for room in rooms]

    for _ in range(2):
        for sim, expected in zip(beside, alone, strict=True):
            assert np.array_equal(sim.render(), expected)
    assert beside[0].model is first.model is not beside[1].model


def test_light_and_table_are_as_the_room_says(make_sim: MakeSim) -> None:
    bright, dark = make_sim().render().mean(), make_sim(replace(PLAIN, light=(0.5, 0.5, 0.5))).render().mean()
    brown = make_sim(replace(PLAIN, table=(0.5, 0.3, 0.2))).render().mean(axis=(0, 1))

    assert 0.4 < dark / bright < 0.6
    assert brown[0] > 1.3 * brown[1] > 1.3 * brown[2]


def test_a_room_beyond_full_size_can_be_seen(make_sim: MakeSim) -> None:
    rooms = [Room.of(number, dict.fromkeys(FACTORS, 1.5)) for number in range(30)]

    assert all((np.array(room.edges_m) >= (0.05, 0.45, 0.45)).all() for room in rooms)
    nearest = min(rooms, key=lambda room: room.edges_m[0])
    assert nearest.edges_m[0] == 0.05 and make_sim(nearest).render().std() > 10


# -- how it is driven ------------------------------------------------------------------------------


def test_joints_are_read_and_driven_off_by_the_same(make_sim: MakeSim) -> None:
    off = (3.0, -3.0, 2.0, -2.0, 6.0, 4.0)
    plain, room = make_sim(), make_sim(replace(PLAIN, joints=off))
    room.data.qpos[:] = plain.data.qpos

    np.testing.assert_allclose(room.state() - plain.state(), off, atol=1e-4)
    for _ in range(20):
        plain.step(HOME)
        room.step(HOME + np.array(off, dtype=np.float32))

    np.testing.assert_allclose(room.data.qpos[:6], plain.data.qpos[:6], atol=1e-4)
    np.testing.assert_allclose(room.units.high - plain.units.high, off, atol=1e-4)


def test_the_arm_follows_later_where_there_is_a_delay(make_sim: MakeSim) -> None:
    target, moved = HOME + np.array([20, 0, 0, 0, 0, 0], dtype=np.float32), []
    for delay_s in (0.0, 0.05, 0.09):
        sim = make_sim(replace(PLAIN, delay_s=delay_s))
        for _ in range(10):
            sim.step(HOME)
        before = sim.state()[0]
        sim.step(target)
        moved.append(float(sim.state()[0] - before))
        for _ in range(10):
            sim.step(target)
        assert abs(sim.state()[0] - target[0]) < 3.0

    assert moved[0] > moved[1] + 1 > moved[2] + 2


def test_slow_cameras_show_what_was(make_sim: MakeSim) -> None:
    """At 10 pictures a second each is up to a control step old, and the same until the next is there."""
    plain, slow = make_sim(), make_sim(replace(PLAIN, frame_s=0.1))
    stale, shown = [], []
    assert np.array_equal(slow.render(), plain.render())
    for _ in range(3):
        for sim in (plain, slow):
            sim.step(HOME)
        stale.append(not np.array_equal(slow.render(), plain.render()))
        shown.append(slow.render())

    assert np.array_equal(slow.data.qpos, plain.data.qpos)
    assert all(stale)
    assert not np.array_equal(shown[0], shown[1])


def test_expert_does_its_tasks_in_any_room() -> None:
    for name in ("push-red-cube-left", "press-magenta-disc", "public-touch"):
        done = 0
        for number in range(10):
            sim = Simulation(find_task(name), 16, room=Room.of(number))
            done += record_episode(sim, 3, 0.0, with_images=False) is not None
        assert done >= 9


def test_a_source_is_recorded_in_its_room(tmp_path: Path) -> None:
    sites = {"a": "sim:press-magenta-disc@3"}
    params = parse_params({"policy": {"base": "random:nano"}, "data": {"sites": sites, "episodes": 2}})
    record_source(tmp_path, params, "a", Source.parse(sites["a"]), lambda: None)
    rows = DatasetFolder(tmp_path / "a", "zk0/a").rows

    sim = Simulation(find_task("press-magenta-disc"), room=Room.of(3))
    tries = (record_episode(sim, recording_seed(1, "a") + n, params.data.noise, with_images=False) for n in range(9))
    episode = next(episode for episode in tries if episode)

    np.testing.assert_array_equal(rows.states[: len(episode.states)], episode.states)
