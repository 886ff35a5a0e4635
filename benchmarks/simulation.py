"""The embedded arm: control steps a second with both cameras, and the expert's success on every task."""

from __future__ import annotations

import time
from typing import Any

from rich.progress import track

from benchmarks.harness import Outcome, plain_app
from benchmarks.isolated import isolated
from benchmarks.pieces import Pieces
from zk0.console import console
from zk0.data.sim.tasks import SITES, TASKS
from zk0.measuring.rows import row

NAME = "simulation"


def control_steps(*, image_size: int, steps: int) -> float:
    """Control steps a second, each with physics and both cameras rendered."""
    from zk0.data.sim.simulation import Simulation

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


def expert_successes(*, name: str, seeds: int) -> int:
    """Successes of the undisturbed expert on the first seeds."""
    from zk0.data.sim.expert import MAX_STEPS, Expert
    from zk0.data.sim.simulation import Simulation

    sim, done = Simulation(TASKS[name]), 0
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


def measure(quick: bool, command: str, pieces: Pieces) -> Outcome:
    """Time the simulation, and count the expert's successes."""
    steps, seeds = (100, 0) if quick else (300, 100)

    def speed(size: int) -> Any:
        return isolated("benchmarks.simulation:control_steps", image_size=size, steps=steps)

    rows = [
        row(
            f"simulation at {size}x{size}",
            f"{steps} control steps, physics and two cameras",
            "steps/s",
            pieces.get(f"{size}x{size}", speed, size),
            command,
        )
        for size in (96, 128)
    ]
    found = {}
    for name in track(list(TASKS) if seeds else [], description="expert", console=console):
        found[name] = pieces.get(
            f"expert, {name}",
            isolated,
            "benchmarks.simulation:expert_successes",
            name=name,
            seeds=seeds,
        )
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
