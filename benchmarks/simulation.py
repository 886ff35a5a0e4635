"""The embedded arm: control steps a second with both cameras, and the expert's success on every task."""

from __future__ import annotations

import time

from rich.progress import track

from benchmarks.harness import Outcome, plain_app
from benchmarks.pieces import Pieces
from zk0.console import console
from zk0.data.sim.expert import MAX_STEPS, Expert
from zk0.data.sim.simulation import Simulation
from zk0.data.sim.tasks import SITES, TASKS

NAME = "simulation"


def control_steps(*, image_size: int, steps: int) -> float:
    """Control steps a second, each with physics and both cameras rendered."""
    sim = Simulation(SITES[0], image_size)
    sim.reset(0)
    sim.images()
    began = time.perf_counter()
    for _ in range(steps):
        sim.step(sim.state())
        sim.images()
    seconds = time.perf_counter() - began
    sim.close()
    return steps / seconds


def expert_successes(*, task: str, seeds: int) -> int:
    """Successes of the undisturbed expert on the first seeds."""
    sim, done = Simulation(TASKS[task]), 0
    for seed in range(seeds):
        sim.reset(seed)
        expert = Expert(sim)
        for _ in range(MAX_STEPS):
            sim.step(expert.action())
            if sim.success:
                done += 1
                break
    sim.close()
    return done


def measure(pieces: Pieces) -> Outcome:
    """Time the simulation, and count the expert's successes."""
    steps, seeds = (100, 0) if pieces.quick else (300, 100)
    work, rows = f"{steps} control steps, physics and two cameras", []
    for size in (96, 128):
        speed = pieces.get(f"{size}x{size}", "benchmarks.simulation:control_steps", image_size=size, steps=steps)
        rows.append(pieces.row(f"simulation at {size}x{size}", work, "steps/s", speed))
    found = {}
    for name in track(list(TASKS) if seeds else [], description="expert", console=console):
        found[name] = pieces.get(f"expert, {name}", "benchmarks.simulation:expert_successes", task=name, seeds=seeds)
    told = "; ".join(f"{name} {count}" for name, count in found.items())
    return Outcome(
        title="Simulation",
        about="The embedded arm, rendered in software where there is no GPU."
        + (f" The scripted expert's successes in {seeds} seeds of each task: {told}." if told else ""),
        rows=rows,
        more={"expert_successes": found},
    )


app = plain_app(NAME, "Time the embedded arm.", measure)

if __name__ == "__main__":
    app()
