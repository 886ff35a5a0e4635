"""Run the expert through whole episodes and keep what a camera and an encoder would have seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zk0.data.sim.expert import MAX_STEP_DEG, Expert
from zk0.data.sim.simulation import Simulation
from zk0.data.sim.tasks import SimTask

MAX_STEPS = 40
_TAIL_STEPS = 3  # frames kept after success, so that the end of the motion is shown as well


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
    task: SimTask, seeds: Iterator[int], count: int, image_size: int, noise: float
) -> Iterator[Episode]:
    """Yield ``count`` successful episodes of a task, trying seeds in order.

    Raises:
        RuntimeError: The expert failed more often than it succeeded, so the task is broken.
    """
    sim = Simulation(task, image_size)
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
