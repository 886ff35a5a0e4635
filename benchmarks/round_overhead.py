"""What a round costs besides training: four sites, 100 M trainable fp32 parameters, no training.

Beside Flower's own simulation on Ray with its FedAvg; the limit is a plain copy of the same bytes.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from benchmarks.harness import Outcome, plain_app
from benchmarks.isolated import isolated
from benchmarks.pieces import Pieces
from benchmarks.projects import camera_params, prepared, use_params
from benchmarks.sizes import FULL, shapes_of
from zk0.console import console
from zk0.measuring.rows import BenchmarkError, row
from zk0.measuring.timing import Spread

NAME = "round_overhead"
PEER = "Flower 1.41 run_simulation (Ray), FedAvg"
SITES = 4
THREADS = 2


def measure(quick: bool, command: str, pieces: Pieces) -> Outcome:
    """Ours without and with saving, the peer, and the limit, in turns."""
    values, rounds, repeats = (FULL // 10, 3, 1) if quick else (FULL, 8, 2)
    root = no_training_project(rounds)
    moved = 2 * SITES * values * 4

    def own(saving: bool) -> Any:
        return isolated(
            "benchmarks.own_federation:rounds_without_training",
            root=str(root),
            shapes=shapes_of(values),
            saving=saving,
            threads=THREADS,
        )

    with_peer = importlib.util.find_spec("ray") is not None
    if not with_peer and not quick:
        raise BenchmarkError("Ray is missing, which Flower's simulation needs; `make bench` installs it")
    if not with_peer:
        console.print("  without Ray, Flower's simulation is left out; `make bench-quick` installs it", style="yellow")

    def peer() -> Any:
        return isolated("benchmarks.peers.flower_ray:simulation_rounds", sites=SITES, values=values, rounds=rounds)

    plain, saved, peers = [], [], []
    for number in range(1, repeats + 1):
        plain.append(pieces.get(f"zk0 without saving, {number}", own, False))
        if with_peer:
            peers.append(pieces.get(f"Flower on Ray, {number}", peer))
        saved.append(pieces.get(f"zk0 with saving, {number}", own, True))
    limit = pieces.get(
        "memory copy",
        isolated,
        "benchmarks.copy_limit:copy_seconds",
        total=moved,
        repeats=5,
        threads=THREADS,
    )
    return outcome(values, command, plain, saved, peers, Spread.of(limit))


def no_training_project(rounds: int) -> Path:
    """Four sites of a small dataset, of which only the numbers are read."""
    dataset = Path(isolated("benchmarks.camera_data:make", episodes=2 * SITES, frames=4))
    params = camera_params(
        dataset, SITES, features={"cache": "off"}, federation={"rounds": rounds}, evaluation={"loss_draws": 1}
    )
    root = prepared(NAME, params)
    use_params(root, params)
    return root


def outcome(values: int, command: str, plain: list[Any], saved: list[Any], peers: list[Any], limit: Spread) -> Outcome:
    """Rows of what was measured."""
    # The first round of a process touches all its memory for the first time: the peer's is left out too.
    rounds = Spread.of([s for run in plain for s in run["round_s"][1:]])
    with_saving = Spread.of([s for run in saved for s in run["round_s"][1:]])
    saving = Spread.of([s for run in saved for s in run["save_s"]])
    start = Spread.of([run["start_s"] for run in plain + saved])
    peer = Spread.of([s for run in peers for s in run["round_s"]]) if peers else None
    peer_start = Spread.of([run["start_s"] for run in peers]) if peers else None
    peer_s = peer.median if peer else None
    work = f"{SITES} sites x {values / 1e6:.0f} M trainable fp32 parameters, no training, all checks on"
    rows = [
        row("round overhead", work, "s", rounds.median, command, peer=peer_s, peer_name=PEER, limit=limit.median),
        row(
            "round overhead, rounds saved",
            f"{work}, each round saved while the next one runs",
            "s",
            with_saving.median,
            command,
            peer=peer_s,
            peer_name=f"{PEER}, which saves nothing",
        ),
        row(
            "saving a round",
            f"{values * 4 / 1e6:.0f} MB of tensors to disk, behind the next round",
            "s",
            saving.median,
            command,
        ),
        row(
            "start of a federation",
            f"{work}, from the first call after imports to round 1",
            "s",
            start.median,
            command,
            peer=peer_start.median if peer_start else None,
            peer_name=PEER,
        ),
        row(
            "memory of a federation in process",
            f"{work}, server and sites together, less imports, over the trainable size",
            "x trainable",
            _memory(plain, values),
            command,
            peer=_memory(peers, values) if peers else None,
            peer_name=f"{PEER}, main process alone",
        ),
    ]
    short = [replies for run in peers for replies in run["replies"] if replies < SITES]
    return Outcome(
        title="Round overhead",
        about=(
            "Training is replaced by nothing: each site puts the global model into a module that holds SmolVLA's "
            "trainable parameters and nothing else, adds a constant, and takes the difference; evaluation says 1. "
            "All else is what a run does: messages, digests, checks, aggregation, the in-process engine, resumable "
            "state. The peer's ClientApp returns the arrays that it got, in the same shapes, and its first round, "
            "which starts Ray's workers, counts as start-up. The limit is a plain memory copy of the bytes that go "
            "down and up."
            + (f" {len(short)} of the peer's rounds averaged fewer than {SITES} replies." if short else "")
        ),
        rows=rows,
        spread={
            "zk0 without saving": f"{rounds} s",
            "zk0 with saving": f"{with_saving} s",
            "saving": f"{saving} s",
            "zk0 start": f"{start} s",
            **({"Flower on Ray": f"{peer} s", "Flower on Ray, start": f"{peer_start} s"} if peers else {}),
            "memory copy": f"{limit} s",
        },
    )


def _memory(runs: list[Any], values: int) -> float:
    return float(max(run["peak_bytes"] - run["baseline_bytes"] for run in runs)) / values / 4


app = plain_app(NAME, "Time rounds in which nobody trains, beside Flower's simulation.", measure)

if __name__ == "__main__":
    app()
