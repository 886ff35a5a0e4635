"""What a round costs besides training: four sites, 100 M trainable fp32 parameters, no training.

In one process, and in two workers on Ray. Beside Flower's own simulation on Ray with its FedAvg; the limit is a plain
copy of the same bytes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.harness import Outcome, plain_app
from benchmarks.pieces import Pieces, isolated
from benchmarks.projects import camera_params, prepared
from benchmarks.sizes import FULL, shapes_of
from zk0.console import console
from zk0.measuring.rows import BenchmarkError, Row
from zk0.measuring.timing import Spread, seconds_of

if TYPE_CHECKING:
    from benchmarks.federations import EmptyRounds
    from benchmarks.peers.flower import PeerRounds

NAME = "round_overhead"
PEER = "Flower 1.41 run_simulation (Ray), FedAvg"
SITES = 4
THREADS = 2
WORKERS = 2  # on Ray, of one thread each


def measure(pieces: Pieces) -> Outcome:
    """Ours without and with saving, the peer, and the limit, in turns."""
    values, rounds, repeats = (FULL // 10, 3, 1) if pieces.quick else (FULL, 8, 2)
    root = no_training_project(rounds)
    ours = "benchmarks.federations:rounds_without_training"
    size = {"root": str(root), "shapes": shapes_of(values), "threads": THREADS}
    peer = "benchmarks.peers.flower:simulation_rounds"
    with_peer = importlib.util.find_spec("ray") is not None
    if not with_peer and not pieces.quick:
        raise BenchmarkError("Ray is missing, which Flower's simulation needs; `make bench` installs it")
    if not with_peer:
        console.print("  without Ray, Flower's simulation is left out; `make bench-quick` installs it", style="yellow")

    plain, saved, spread_out, peers = [], [], [], []
    for number in range(1, repeats + 1):
        plain.append(pieces.get(f"zk0 without saving, {number}", ours, saving=False, **size))
        if with_peer:
            name = f"Flower on Ray, {number}"
            peers.append(pieces.get(name, peer, sites=SITES, values=values, rounds=rounds))
            name = f"zk0 on Ray, {number}"
            spread_out.append(pieces.get(name, ours, saving=False, workers=WORKERS, **(size | {"threads": 1})))
        saved.append(pieces.get(f"zk0 with saving, {number}", ours, saving=True, **size))
    copied = {"total": 2 * SITES * values * 4, "repeats": 5, "threads": THREADS}
    limit = pieces.get("memory copy", "benchmarks.round_overhead:copy_seconds", **copied)
    told = outcome(values, pieces, plain, saved, peers, Spread.of(limit))
    return replace(told, rows=[*told.rows, *ray_rows(values, pieces, spread_out, peers)]) if with_peer else told


def ray_rows(values: int, pieces: Pieces, ours: Sequence[EmptyRounds], peers: Sequence[PeerRounds]) -> Iterator[Row]:
    """Rows of zk0's engine on Ray beside Flower's."""
    work = f"{SITES} sites x {values / 1e6:.0f} M trainable fp32 parameters, no training, {WORKERS} workers on Ray"
    seconds = median(s for run in ours for s in run["round_s"][1:])
    peer_s = median(s for run in peers for s in run["round_s"])
    yield pieces.row("round overhead on Ray", f"{work}, all checks on", "s", seconds, (peer_s, PEER))
    memory, peer = (max(run["private_bytes"] for run in runs) / values / 4 for runs in (ours, peers))
    work += ", what the main process holds less imports and without Ray's store, over the trainable size"
    yield pieces.row("server's memory on Ray", work, "x trainable", memory, (peer, PEER))


def no_training_project(rounds: int) -> Path:
    """Four sites of a small dataset, of which only the numbers are read."""
    dataset = Path(isolated("benchmarks.recordings:cameras", episodes=2 * SITES, frames=4))
    params = camera_params(
        dataset, SITES, features={"cache": "off"}, federation={"rounds": rounds}, evaluation={"loss_draws": 1}
    )
    return prepared(NAME, params)


def copy_seconds(*, total: int, repeats: int, threads: int) -> list[float]:
    """Seconds to copy ``total`` bytes into memory that exists already: the limit of whatever moves what a round moves.

    Args:
        total: Bytes copied, each read once and written once, in buffers of at most 400 MB.
        repeats: Copies that count, after one that warms up.
        threads: Threads of this process.
    """
    import torch  # noqa: PLC0415 - the process that measures does alone

    torch.set_num_threads(threads)
    size = min(total, 400_000_000)
    source, target = torch.ones(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)

    def copy(_: int) -> None:
        for begin in range(0, total, size):
            part = min(total - begin, size)
            target[:part].copy_(source[:part])

    return seconds_of(copy, repeats, warm_up=1)


def outcome(
    values: int,
    pieces: Pieces,
    plain: list[EmptyRounds],
    saved: list[EmptyRounds],
    peers: list[PeerRounds],
    limit: Spread,
) -> Outcome:
    """Rows of what was measured."""
    # The first round of a process touches all its memory for the first time: the peer's is left out too.
    rounds = Spread.of([s for run in plain for s in run["round_s"][1:]])
    with_saving = Spread.of([s for run in saved for s in run["round_s"][1:]])
    saving = Spread.of([s for run in saved for s in run["save_s"]])
    start = Spread.of([run["start_s"] for run in plain + saved])
    peer = Spread.of([s for run in peers for s in run["round_s"]]) if peers else None
    peer_start = Spread.of([run["start_s"] for run in peers]) if peers else None
    peer_s, peer_start_s = (spread.median if spread else None for spread in (peer, peer_start))
    peer_memory = _memory(peers, values) if peers else None
    work = f"{SITES} sites x {values / 1e6:.0f} M trainable fp32 parameters, no training, all checks on"
    saved_work = f"{work}, each round saved while the next one runs"
    disk_work = f"{values * 4 / 1e6:.0f} MB of tensors to disk, behind the next round"
    start_work = f"{work}, from the first call after imports to round 1"
    memory_work = f"{work}, server and sites together, less imports, over the trainable size"
    unsaved, alone = f"{PEER}, which saves nothing", f"{PEER}, main process alone"
    memory = "memory of a federation in process"
    rows = [
        pieces.row("round overhead", work, "s", rounds.median, (peer_s, PEER), limit.median),
        pieces.row("round overhead, rounds saved", saved_work, "s", with_saving.median, (peer_s, unsaved)),
        pieces.row("saving a round", disk_work, "s", saving.median),
        pieces.row("start of a federation", start_work, "s", start.median, (peer_start_s, PEER)),
        pieces.row(memory, memory_work, "x trainable", _memory(plain, values), (peer_memory, alone)),
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


def _memory(runs: Sequence[EmptyRounds | PeerRounds], values: int) -> float:
    return float(max(run["peak_bytes"] - run["baseline_bytes"] for run in runs)) / values / 4


app = plain_app(NAME, "Time rounds in which nobody trains, beside Flower's simulation.", measure)

if __name__ == "__main__":
    app()
