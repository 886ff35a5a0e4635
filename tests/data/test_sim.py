"""The simulated arm, its tasks and the scripted expert."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest

from zk0.data.recordings import recording_seed
from zk0.data.sim.arm import cluster_vertices
from zk0.data.sim.expert import MAX_STEP_DEG, Episode, Expert, record_episode, record_episodes
from zk0.data.sim.rooms import PLAIN, Room, room_of
from zk0.data.sim.simulation import CAMERAS, COLOURS, HOME, MOVE_M, Simulation
from zk0.data.sim.table import show_in_sight
from zk0.data.sim.tasks import SITES, TASKS, Region, SimTask, find_task
from zk0.params import EvaluationParams
from zk0.so100 import FEATURE_NAMES, JOINTS

MakeSim = Callable[..., Simulation]


@pytest.fixture
def make_sim() -> Iterator[MakeSim]:
    """Makes simulations, and closes them afterwards."""
    made: list[Simulation] = []

    def make(task: SimTask | str, image_size: int = 32) -> Simulation:
        made.append(Simulation(find_task(task) if isinstance(task, str) else task, image_size))
        return made[-1]

    yield make
    for sim in made:
        sim.close()


def record(sim: Simulation, seed: int, noise: float = 0.25, with_images: bool = False) -> Episode:
    episode = record_episode(sim, seed, noise, with_images)
    assert episode is not None
    return episode


# -- repeatability -------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["push-red-cube-left", "press-magenta-disc"])
def test_same_seed_same_numbers(make_sim: MakeSim, task: str) -> None:
    first, again = record(make_sim(task), 7), record(make_sim(task), 7)

    assert first.states.tobytes() == again.states.tobytes()
    assert first.actions.tobytes() == again.actions.tobytes()
    assert (first.sentence, first.place.tolist()) == (again.sentence, again.place.tolist())


def test_what_was_simulated_before_changes_nothing(make_sim: MakeSim) -> None:
    sim = make_sim("pull-blue-bar")
    record(sim, 8)

    assert record(sim, 7).states.tobytes() == record(make_sim("pull-blue-bar"), 7).states.tobytes()


def test_looking_changes_nothing(make_sim: MakeSim) -> None:
    seen = record(make_sim("press-magenta-disc"), 7, with_images=True)
    unseen = record(make_sim("press-magenta-disc"), 7)

    assert seen.states.tobytes() == unseen.states.tobytes()
    assert unseen.images == {}


def test_another_seed_is_another_scene(make_sim: MakeSim) -> None:
    one, other = record(make_sim("pull-blue-bar"), 7), record(make_sim("pull-blue-bar"), 8)

    assert not np.array_equal(one.place, other.place)
    assert not np.array_equal(one.states[0], other.states[0])


# -- units ---------------------------------------------------------------------------------------


def test_units_come_back(make_sim: MakeSim) -> None:
    sim = make_sim("pull-blue-bar")
    sim.reset(0)
    radians = np.array([0.1, -1.0, 0.5, 1.2, -0.3, 0.4])

    values = sim.units.to_lerobot(radians)

    assert values.dtype == np.float32
    np.testing.assert_allclose(values[:5], np.rad2deg(radians[:5]), rtol=1e-6)
    np.testing.assert_allclose(sim.units.to_mujoco(values), radians, atol=1e-6)


def test_gripper_is_in_percent_of_its_range(make_sim: MakeSim) -> None:
    sim = make_sim("pull-blue-bar")
    sim.reset(0)
    low, high = sim.model.joint("gripper").range
    closed, half, opened = (np.array([0, 0, 0, 0, 0, angle]) for angle in (low, (low + high) / 2, high))

    assert [round(float(sim.units.to_lerobot(a)[5]), 4) for a in (closed, half, opened)] == [0.0, 50.0, 100.0]


def test_targets_beyond_a_joints_range_are_clipped(make_sim: MakeSim) -> None:
    sim = make_sim("pull-blue-bar")
    sim.reset(0)
    ranges = np.array([sim.model.joint(joint).range for joint in JOINTS])

    np.testing.assert_allclose(sim.units.to_mujoco(np.full(6, 1e4)), ranges[:, 1], atol=1e-6)
    np.testing.assert_allclose(sim.units.to_mujoco(np.full(6, -1e4)), ranges[:, 0], atol=1e-6)


def test_arm_starts_near_home_and_follows_targets(make_sim: MakeSim) -> None:
    sim = make_sim("press-magenta-disc")
    sim.reset(3)
    assert np.all(np.abs(sim.state() - HOME) <= [18, 8, 8, 8, 6, 4.001])

    target = HOME + np.array([10, 5, -5, 5, 10, 20], dtype=np.float32)
    for _ in range(20):
        sim.step(target)

    assert np.abs(sim.state() - target).max() < 3.0


def test_features_are_the_joints_of_an_so100() -> None:
    assert tuple(f"{joint}.pos" for joint in JOINTS) == FEATURE_NAMES
    assert JOINTS[0] == "shoulder_pan" and JOINTS[-1] == "gripper"


# -- the expert ----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_expert_succeeds(make_sim: MakeSim, task: str) -> None:
    sim = make_sim(task)

    successes = sum(record_episode(sim, seed, 0.0, with_images=False) is not None for seed in range(20))

    assert successes >= 19


def test_expert_takes_no_larger_step_than_it_may(make_sim: MakeSim) -> None:
    episode = record(make_sim("push-red-cube-left"), 3)

    assert np.all(np.abs(episode.actions - episode.states) <= MAX_STEP_DEG + 1e-3)


def test_noise_is_executed_but_not_recorded(make_sim: MakeSim) -> None:
    sim = make_sim("press-magenta-disc")
    clean, disturbed = record(sim, 3, noise=0.0), record(sim, 3, noise=0.5)

    assert np.array_equal(clean.actions[0], disturbed.actions[0])
    assert not np.array_equal(clean.states[1], disturbed.states[1])


def test_task_that_cannot_be_done_gives_no_episode(make_sim: MakeSim) -> None:
    beyond_reach = SimTask("far", "point", ("plate",), ("red",), Region((0, 0), (0.6, 0.6)))

    assert record_episode(make_sim(beyond_reach), 0, 0.0, with_images=False) is None
    with pytest.raises(RuntimeError, match="fails on 'far': 11 times, 0 successes"):
        list(record_episodes(beyond_reach, itertools.count(), 1, 8, 0.0))


# -- success -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_nothing_is_done_at_the_start(make_sim: MakeSim, task: str) -> None:
    sim = make_sim(task)
    for seed in range(5):
        sim.reset(seed)
        assert not sim.success
        sim.step(sim.state())
        assert not sim.success


def test_pushing_counts_only_in_the_right_direction(make_sim: MakeSim) -> None:
    sim = make_sim("push-red-cube-left")
    for share, expected in ((-1.2, False), (0.9, False), (1.2, True)):
        sim.reset(3)
        direction = sim.task.direction(sim.scene.x, sim.scene.y)
        assert direction is not None
        sim.data.joint("object").qpos[:2] += direction * MOVE_M * share
        sim.step(sim.state())
        assert sim.success is expected


def test_pressing_a_disc_leaves_it_where_it_is(make_sim: MakeSim) -> None:
    sim = make_sim("press-magenta-disc")
    sim.reset(3)
    expert = Expert(sim)
    while not sim.success:
        sim.step(expert.action())

    np.testing.assert_allclose(sim.object_position[:2], [sim.scene.x, sim.scene.y], atol=1e-6)
    assert np.linalg.norm(sim.tool[:2] - sim.object_position[:2]) <= 0.025


# -- images --------------------------------------------------------------------------------------


def test_images_are_of_the_size_asked_for(make_sim: MakeSim) -> None:
    sim = make_sim("push-red-cube-left", image_size=40)
    sim.reset(3)
    images = sim.images()

    assert set(images) == {"top", "wrist"}
    assert all(image.shape == (40, 40, 3) and image.dtype == np.uint8 for image in images.values())
    assert sim.render(size=64).shape == (64, 64, 3)
    assert not np.array_equal(images["top"], images["wrist"])


@pytest.mark.parametrize("task", SITES, ids=lambda task: task.name)
def test_object_shows_in_its_colour(make_sim: MakeSim, task: SimTask) -> None:
    sim = make_sim(task, image_size=96)
    sim.reset(3)
    shown = sim.render().astype(float)
    sim.scene.colour = "black"
    difference = np.abs(shown - sim.render().astype(float)).sum(axis=2)

    seen = shown[difference > 40].mean(axis=0)
    paint = np.array(COLOURS[task.colours[0]])
    cosine = float(seen @ paint / np.linalg.norm(seen) / np.linalg.norm(paint))

    assert (difference > 40).sum() >= 20
    assert cosine > 0.9


def test_simulations_may_share_models_and_gl(make_sim: MakeSim) -> None:
    first = make_sim("push-red-cube-left")
    other = Simulation(first.task, first.image_size, share=first)
    first.reset(3)
    shown = first.render()
    other.reset(4)
    elsewhere = other.render()

    assert other.model is first.model
    assert not np.array_equal(shown, elsewhere)
    assert np.array_equal(first.render(), shown)


@pytest.mark.parametrize("room", [PLAIN, room_of(2)], ids=["plain", "room 2"])
def test_what_is_hidden_of_the_table_is_in_no_picture(room: Room, cube_task: SimTask) -> None:
    sim = Simulation(cube_task, 96, room=room)
    expert, hidden = Expert(sim), set[int]()
    sim.reset(3)
    try:
        for _ in range(8):
            sim.step(expert.action())
            for name, camera in CAMERAS.items():
                shown = sim.images()[name]
                pieces = np.flatnonzero((sim.model.geom_type == 0) & (sim.model.geom_contype == 0))
                show_in_sight(sim.model, sim.data, camera)
                hidden.add(int((sim.model.geom_group[pieces] > 0).sum()))
                with mock.patch("zk0.data.sim.simulation.show_in_sight", partial(_show_all, pieces)):
                    assert np.array_equal(sim.render(camera), shown)
    finally:
        sim.close()

    assert max(hidden) == (8 if room == PLAIN else 0)
    sides = sim.model.geom_size[pieces, :2]
    assert 4 * sides.prod(axis=1).sum() == pytest.approx((room.edges_m[0] + room.edges_m[1]) * 2 * room.edges_m[2])


def _show_all(pieces: np.ndarray, model: Any, _data: Any, _camera: str) -> None:
    model.geom_group[pieces] = 0


# -- seeds ---------------------------------------------------------------------------------------


def test_recorded_scenes_are_never_evaluated(cube_task: SimTask) -> None:
    firsts = [recording_seed(seed, name) for seed in range(50) for name in ("red-cube", "green-ball", "disc")]
    seeds = [episode.seed for episode in record_episodes(cube_task, itertools.count(40), 3, 8, 0.0)]

    assert seeds == [40, 41, 42]
    assert all(0 <= first < 90_000 for first in firsts)
    assert len(set(firsts)) == len(firsts)
    assert EvaluationParams().seed >= 100_000  # and params refuse less


# -- meshes --------------------------------------------------------------------------------------


def test_vertices_of_a_cell_become_their_mean() -> None:
    """Two triangles whose corners 0 and 3 share a cell become two triangles on four vertices."""
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0.02, 0, 0], [-1, 0, 0]])
    faces = np.array([[0, 1, 2], [3, 2, 4], [0, 3, 1], [2, 0, 1]])

    merged, corners = cluster_vertices(vertices, faces, cell=0.1)

    assert sorted(map(tuple, merged.round(3).tolist())) == [(-1, 0, 0), (0, 1, 0), (0.01, 0, 0), (1, 0, 0)]
    assert len(corners) == 2  # one had two corners in the cell, one was there twice
