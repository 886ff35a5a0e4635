"""The simulated tasks: what they ask, and where."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zk0.data.sim.tasks import PAN_AXIS_X_M, PUBLIC, SITES, UNSEEN, Region, SimTask, find_task


def test_public_objects_never_stand_where_a_site_works() -> None:
    for task in PUBLIC:
        rng = np.random.default_rng(1)
        for _ in range(500):
            x, y = task.place(rng)
            assert task.region.contains(x, y)
            assert not any(site.region.contains(x, y) for site in SITES)


def test_public_objects_are_unlike_those_of_sites() -> None:
    owners = (*SITES, UNSEEN)
    public_colours = {colour for task in PUBLIC for colour in task.colours}
    public_shapes = {shape for task in PUBLIC for shape in task.shapes}

    assert not public_colours & {colour for task in owners for colour in task.colours}
    assert not public_shapes & {shape for task in SITES for shape in task.shapes}
    assert not {task.verb for task in PUBLIC} & {task.verb for task in owners}


def test_sites_differ_in_verb_shape_and_colour() -> None:
    for values in ([t.verb for t in SITES], [t.shapes for t in SITES], [t.colours for t in SITES]):
        assert len(set(values)) == len(SITES)
    sentences = [task.sentence(task.shapes[0], task.colours[0]) for task in (*SITES, UNSEEN)]
    assert sentences[0] == "push the red cube to the left"
    assert len(set(sentences)) == len(sentences)


def test_directions_are_as_seen_from_the_arm() -> None:
    ahead = (PAN_AXIS_X_M + 0.2, 0.0)
    expected = {"push-away": (1, 0), "pull": (-1, 0), "push-left": (0, 1), "push-right": (0, -1), "touch": None}
    for verb, direction in expected.items():
        found = SimTask("t", verb, ("cube",), ("red",), Region((0, 0), (0.2, 0.2))).direction(*ahead)  # type: ignore[arg-type]
        assert found is None if direction is None else np.allclose(found, direction)  # type: ignore[arg-type]


def test_regions_are_ring_sectors_around_the_pan_axis() -> None:
    region = Region((-30, 30), (0.1, 0.2))
    at = [
        (PAN_AXIS_X_M + r * math.cos(math.radians(a)), r * math.sin(math.radians(a)))
        for r, a in [(0.15, 0), (0.15, 29), (0.15, -31), (0.09, 0), (0.21, 0)]
    ]

    assert [region.contains(x, y) for x, y in at] == [True, True, False, False, False]


def test_unknown_task_comes_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'pull-blue-bar'"):
        find_task("pull-blue-bra")
