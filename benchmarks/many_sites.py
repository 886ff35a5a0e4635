"""A thousand sites on one machine: time a round and peak memory by number of sites, and by engine.

Three rounds of the small policy, one optimiser step at each site. A simulated recording is dealt to the
sites, two episodes each; beyond those that were recorded, sites have copies of them.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.harness import Outcome, plain_app
from benchmarks.pieces import Pieces, isolated
from benchmarks.projects import CACHE, demo_params, prepared, use_params
from zk0.data.manifest import read_manifests, write_manifest
from zk0.measuring.rows import Row
from zk0.params import with_changes

if TYPE_CHECKING:
    from benchmarks.federations import FederatedRun  # it loads torch

NAME = "many_sites"
TASK = "press-magenta-disc"
RECORDED = 50  # sites with a recording of their own
ROUNDS = 3
FEWEST = 4  # sites, beside which the server's memory of many is told
THREADS = 2


def measure(pieces: Pieces) -> Outcome:
    """One process for each number of sites, and for the largest on each engine."""
    sizes = (10, 20, 40) if pieces.quick else (125, 250, 500, 1000)
    most = min(sizes[-1], RECORDED)
    folder = (CACHE / "data" / f"{TASK}-{2 * most}").resolve()
    isolated("benchmarks.recordings:simulated", task=TASK, folder=str(folder), episodes=2 * most)
    partition = {"scheme": "equal", "sites": most}
    params = demo_params(
        data={"sites": {"disc": f"local:{folder}"}, "unseen": {}, "partition": partition, "held_out": 0.5},
        training={"local_steps": 1, "warmup_steps": 0},
        federation={"rounds": ROUNDS},
        evaluation={"loss_draws": 1},
    )
    whole = prepared(NAME, params)
    features = (CACHE / "features" / NAME).resolve()

    def run(sites: int, threads: int = THREADS, workers: int = 0) -> FederatedRun:
        root = first_sites(whole, sites)
        use_params(root, with_changes(params, {"threads": threads}))
        result: FederatedRun = isolated(
            "benchmarks.federations:federated_run", root=str(root), features=str(features), workers=workers
        )
        shutil.rmtree(root)
        return result

    # The largest first: it computes the features that all of them read.
    results = {sites: pieces.get(f"{sites} sites", run, sites) for sites in reversed(sizes)}
    most = sizes[-1]
    engines = {n: pieces.get(f"{most} sites, {engine_name(n)}", run, most, threads=1, workers=n) for n in (0, 1, 2)}
    few = pieces.get(f"{FEWEST} sites, {engine_name(2)}", run, FEWEST, threads=1, workers=2)
    told = outcome({sites: results[sites] for sites in sizes}, pieces)
    beside = engine_rows(most, median_round(results[most]), engines, few, pieces)
    return replace(told, rows=[*told.rows, *beside])


def engine_name(workers: int) -> str:
    """How many of Ray's workers, each of one thread; or the process that stands beside them.

    >>> engine_name(0), engine_name(1)
    ('one process of one thread', '1 worker on Ray')
    """
    return f"{workers} worker{'s' * (workers > 1)} on Ray" if workers else "one process of one thread"


def median_round(run: FederatedRun) -> float:
    """Seconds; the first round of a process opens every site's data for the first time, and is left out."""
    return median(run["round_s"][1:])


def engine_rows(
    sites: int, two_threads: float, engines: dict[int, FederatedRun], few: FederatedRun, pieces: Pieces
) -> list[Row]:
    """The largest number of sites on each engine, and the server's memory there beside that of a few sites.

    Args:
        sites: How many.
        two_threads: Seconds a round in one process of two threads.
        engines: By number of workers of one thread each, 0 = in process.
        few: ``FEWEST`` sites on two workers.
        pieces: The benchmark's.
    """
    seconds = {workers: median_round(run) for workers, run in engines.items()}
    work = f"{sites} sites, small policy, one step each, evaluation and saving included, one thread a worker"
    one, two, alone = engine_name(1), engine_name(2), (seconds[0], engine_name(0))
    server, few_of = f"server's memory, {sites} sites, {two}", (few["private_bytes"], f"{FEWEST} sites")
    return [
        pieces.row(f"round, {one}", work, "s", seconds[1], alone),
        pieces.row(f"round, {two}", work, "s", seconds[2], alone),
        pieces.row(f"round, {two}, beside two threads", work, "s", seconds[2], (two_threads, "a process of 2 threads")),
        pieces.row(server, "the most that its process alone held", "bytes", engines[2]["private_bytes"], few_of),
    ]


def first_sites(whole: Path, sites: int) -> Path:
    """A project of the first sites of another; where those are too few, of copies of their data as well."""
    root = whole / f"first-{sites}"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    shutil.copy(whole / "sources.lock.json", root)
    manifests = read_manifests(whole)[0]
    for partition in range(sites):
        copy, place = divmod(partition, len(manifests))
        manifest = manifests[place]
        if copy:
            data = root / f"copy-{copy}"
            if not data.exists():
                shutil.copytree(whole / manifest.root, data)
            changes = {"site": f"{manifest.site}-copy-{copy}", "partition": partition, "root": str(data.resolve())}
            manifest = manifest.model_copy(update=changes)
        write_manifest(root, manifest)
    return root


def outcome(results: dict[int, FederatedRun], pieces: Pieces) -> Outcome:
    """Rows and plots of what was measured."""
    rows = []
    seconds = {sites: median_round(run) for sites, run in results.items()}
    for sites, run in results.items():
        work = f"{sites} sites, small policy, one step each, evaluation and saving included, in process"
        rows.append(pieces.row(f"round of {sites} sites", work, "s", seconds[sites]))
        rows.append(pieces.row(f"peak memory, {sites} sites", work, "bytes", run["peak_bytes"]))
    fewest, most = min(results), max(results)
    per_site = {sites: seconds[sites] / sites for sites in results}
    whole = results[most]["start_s"] + sum(results[most]["round_s"])
    work = "the whole run, from data on disk to exported checkpoints"
    rows.append(pieces.row(f"{most} sites x {ROUNDS} rounds", work, "s", whole))
    return Outcome(
        title=f"{most:,} sites",
        about=(
            f"A simulated recording dealt to {min(most, RECORDED)} sites, one episode to train on and one held out "
            "each; a smaller run has the first of them, a larger one copies of their data besides. "
            f"From {fewest} to {most} sites, seconds a site and round go from "
            f"{per_site[fewest]:.3g} to {per_site[most]:.3g}, and peak memory from "
            f"{results[fewest]['peak_bytes'] / 1e9:.2f} to {results[most]['peak_bytes'] / 1e9:.2f} GB. No other "
            "project is known to publish such a run of a vision-language-action policy."
        ),
        rows=rows,
        spread={
            f"round of {n} sites": f"{min(r['round_s'][1:]):.3g} to {max(r['round_s'][1:]):.3g} s, the first "
            f"{r['round_s'][0]:.3g} s"
            for n, r in results.items()
        },
        series={
            "many-sites-time": {
                "title": "Seconds a round",
                "x": "sites",
                "y": "seconds",
                "lines": {
                    "measured": [[float(n), s] for n, s in seconds.items()],
                    f"proportional to {fewest} sites": [[float(n), per_site[fewest] * n] for n in seconds],
                },
            },
            "many-sites-memory": {
                "title": "Peak memory, server and all sites in one process",
                "x": "sites",
                "y": "GB",
                "lines": {"resident": [[float(n), r["peak_bytes"] / 1e9] for n, r in results.items()]},
            },
        },
    )


app = plain_app(NAME, "Run many sites on this machine, and tell whether time is linear and memory flat.", measure)

if __name__ == "__main__":
    app()
