"""The embedded arm: control steps a second with both cameras, and the expert's success on every task.

python benchmarks/simulation.py
"""

from __future__ import annotations

import time

from rich.progress import track

from zk0.console import console
from zk0.data.sim.episodes import MAX_STEPS
from zk0.data.sim.expert import Expert
from zk0.data.sim.simulation import Simulation
from zk0.data.sim.tasks import SITES, TASKS

STEPS = 300
SEEDS = 100


def control_steps_per_second(image_size: int) -> float:
    """Control steps a second, each with physics and both cameras rendered."""
    sim = Simulation(SITES[0], image_size)
    sim.reset(0)
    sim.images()
    began = time.perf_counter()
    for _ in range(STEPS):
        sim.step(sim.state())
        sim.images()
    seconds = time.perf_counter() - began
    sim.close()
    return STEPS / seconds


def expert_successes(name: str) -> int:
    """Successes of the undisturbed expert on seeds 0 to 99."""
    sim, done = Simulation(TASKS[name]), 0
    for seed in range(SEEDS):
        sim.reset(seed)
        expert = Expert(sim)
        for _ in range(MAX_STEPS):
            sim.step(expert.action())
            if sim.success:
                done += 1
                break
    return done


if __name__ == "__main__":
    for size in (96, 128):
        console.print(f"two cameras at {size}x{size}: {control_steps_per_second(size):.0f} control steps/s")
    for task in track(list(TASKS), description="expert", console=console):
        console.print(f"{task:<28} expert succeeds in {expert_successes(task)} of {SEEDS} seeds")
