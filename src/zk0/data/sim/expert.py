"""A scripted expert that knows where the object is and moves the joints there.

Each action is a joint target at most ``MAX_STEP_DEG`` from the present position on the way to a
pose found by inverse kinematics. The pose depends only on where things are now, never on the
past, so the expert can correct from any state: demonstrations may be disturbed while they are
recorded (noise injection, Laskey et al., "DART: Noise Injection for Robust Imitation Learning",
CoRL 2017) and still show the right action at every frame.

Run through whole episodes, it leaves what a camera and an encoder would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np
from scipy.optimize import least_squares

from zk0.data.sim.arm import TOOL_SITE
from zk0.data.sim.rooms import PLAIN, Room
from zk0.data.sim.simulation import HOME, Simulation
from zk0.data.sim.tasks import PAN_AXIS_X_M, SimTask

# Largest change of a joint target in one control step: the speed of a careful person.
MAX_STEP_DEG = np.array([6.0, 6.0, 6.0, 6.0, 6.0, 12.0])
GRIPPER_CLOSED = 5.0
_HEIGHT_M = {"touch": 0.036, "point": 0.06, "press": 0.013}
_MOVE_HEIGHT_M = {"pull": 0.022}  # of the tool while it pushes or pulls ...
_PUSH_HEIGHT_M = 0.032  # ... if not named here
_BEFORE_M = 0.055  # where a push begins, before the object's centre ...
_BEYOND_M = 0.05  # ... and where it ends, beyond
_RISE = 1.0  # extra height per metre still to go ...
_MAX_RISE_M = 0.05  # ... up to this

MAX_STEPS = 40
_TAIL_STEPS = 3  # frames kept after success, so that the end of the motion is shown as well


class Expert:
    """The expert of one simulation; ask it for an action at every control step."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self._model: mujoco.MjModel | None = None
        self._poses: dict[tuple[float, float, float], np.ndarray] = {}

    def action(self) -> np.ndarray:
        """The joint target for this moment, (6,) float32 in LeRobot's units."""
        state = self.sim.state()
        goal = self._pose(*self._waypoint())
        step = goal - state
        # All joints slow down together, so that the tool keeps to the line between two poses.
        return np.asarray(state + step / max(1.0, np.max(np.abs(step) / MAX_STEP_DEG)), dtype=np.float32)

    def _waypoint(self) -> tuple[float, float, float]:
        """Where the tool should go now, (x, y, z) in metres."""
        scene, task, tool = self.sim.scene, self.sim.task, self.sim.tool
        goal = np.array([scene.x, scene.y])
        direction = task.direction(scene.x, scene.y)
        if direction is None:
            height = _HEIGHT_M[task.verb]
        else:
            # Come down before the object, then go through it. Which of the two follows from where
            # the tool is: low and in line with the object means go.
            offset, height = tool[:2] - goal, _MOVE_HEIGHT_M.get(task.verb, _PUSH_HEIGHT_M)
            along = float(offset @ direction)
            aside = float(np.linalg.norm(offset - along * direction))
            if tool[2] < height + 0.022 and aside < 0.015 and along > -_BEFORE_M - 0.02:
                x, y = goal + direction * min(along + 0.025, _BEYOND_M)
                return x, y, height
            goal = goal - direction * _BEFORE_M
        if task.verb == "point":
            return *goal, height
        # Stay above the table on the way: the fingers would catch on it, and on the object.
        away = float(np.linalg.norm(tool[:2] - goal))
        return *goal, height + float(np.clip(_RISE * (away - 0.015), 0.0, _MAX_RISE_M))

    def _pose(self, x: float, y: float, height: float) -> np.ndarray:
        """Joint positions that put the tool there, gripper closed and pointing down and out."""
        if self._model is not self.sim.model:
            self._model, self._poses = self.sim.model, {}
            self._scratch = mujoco.MjData(self.sim.model)
        if (key := (x, y, height)) not in self._poses:
            self._poses[key] = self._solve(x, y, height)
        return self._poses[key]

    def _solve(self, x: float, y: float, height: float) -> np.ndarray:
        units, data, model = self.sim.units, self._scratch, self.sim.model
        target = np.array([x, y, height])
        pan, reach = math.atan2(y, x - PAN_AXIS_X_M), math.hypot(x - PAN_AXIS_X_M, y)
        # Far away the gripper has to lie flatter to reach the table.
        slope = math.radians(np.interp(reach, [0.12, 0.30], [70.0, 40.0]))
        if self.sim.task.verb == "pull":  # reach over the object, not through it
            slope = math.radians(np.interp(reach, [0.20, 0.32], [88.0, 70.0]))

        def pose(angles: np.ndarray) -> np.ndarray:
            return np.array([*angles, 0.0, GRIPPER_CLOSED])

        def residual(angles: np.ndarray) -> np.ndarray:
            data.qpos[:6] = units.to_mujoco(pose(angles))
            mujoco.mj_kinematics(model, data)
            off = (data.site(TOOL_SITE).xpos - target) / 0.002
            forward = data.site(TOOL_SITE).xmat.reshape(3, 3)[:, 2]
            tilt = (math.asin(float(np.clip(-forward[2], -1, 1))) - slope) / 0.2
            return np.append(off, tilt)

        start = np.array([-math.degrees(pan), *HOME[1:4]])
        solution = least_squares(
            residual,
            start,
            bounds=(units.low[:4].astype(float), units.high[:4].astype(float)),
            diff_step=1e-3,
            x_scale=10.0,
            xtol=1e-4,
            ftol=1e-4,
        )
        # The solver's last bits depend on how its matrices happen to lie in memory, and contact would
        # amplify them; rounded, the same seed records the same numbers in every process.
        return pose(np.round(solution.x, 3))


@dataclass(frozen=True)
class Episode:
    """One demonstration.

    Attributes:
        seed: Seed of the simulation's reset.
        sentence: The instruction.
        states: (T, 6) float32 joint positions before each action.
        actions: (T, 6) float32 joint targets, the expert's own, without the injected noise.
        images: Camera name to (T, H, W, 3) uint8, or empty when not rendered.
        place: (2,) where the object stood at the start, metres in the base frame.
    """

    seed: int
    sentence: str
    states: np.ndarray
    actions: np.ndarray
    images: dict[str, np.ndarray]
    place: np.ndarray


def record_episode(sim: Simulation, seed: int, noise: float, with_images: bool = True) -> Episode | None:
    """Record the expert once.

    Args:
        sim: The simulation; it is reset here.
        seed: Decides the scene and the noise.
        noise: Standard deviation of the disturbance added to what is executed, as a share of the
            expert's largest step (0 = none). It drifts from step to step as a hand would.
        with_images: Whether to render the cameras.

    Returns:
        The episode, or None if the expert did not succeed within ``MAX_STEPS``.
    """
    rng = np.random.default_rng([seed, 1])
    sim.reset(seed)
    expert = Expert(sim)
    drift = np.zeros(6)
    states, actions, frames = [], [], []
    tail = _TAIL_STEPS
    for _ in range(MAX_STEPS):
        action = expert.action()
        states.append(sim.state())
        actions.append(action)
        if with_images:
            frames.append(sim.images())
        drift = 0.6 * drift + rng.normal(0.0, noise, size=6) * MAX_STEP_DEG
        sim.step(action + drift)
        if sim.success:
            if tail == 0:
                break
            tail -= 1
    if not sim.success:
        return None
    place = np.array([sim.scene.x, sim.scene.y], dtype=np.float32)
    images = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]} if frames else {}
    return Episode(seed, sim.sentence, np.stack(states), np.stack(actions), images, place)


def record_episodes(
    task: SimTask, seeds: Iterator[int], count: int, image_size: int, noise: float, room: Room = PLAIN
) -> Iterator[Episode]:
    """Yield ``count`` successful episodes of a task, trying seeds in order.

    Raises:
        RuntimeError: The expert failed more often than it succeeded, so the task is broken.
    """
    sim = Simulation(task, image_size, room=room)
    done = failed = 0
    try:
        while done < count:
            episode = record_episode(sim, next(seeds), noise)
            if episode is None:
                failed += 1
                if failed > 10 + done:
                    raise RuntimeError(f"the scripted expert fails on '{task.name}': {failed} times, {done} successes")
                continue
            done += 1
            yield episode
    finally:
        sim.close()
