"""Held-out loss against bytes: the demo's federation under each codec, three seeds.

Every run of a seed has the same recordings, splits, batches and noise, so codecs are compared in pairs.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from benchmarks.harness import Outcome, plain_app
from benchmarks.pieces import Pieces, isolated
from benchmarks.projects import CACHE, demo_params, prepared
from benchmarks.wire_bytes import LADDER
from zk0.measuring.timing import Spread

if TYPE_CHECKING:
    from benchmarks.federations import FederatedRun  # it loads torch

NAME = "codec_ladder"


def measure(pieces: Pieces) -> Outcome:
    """One federated run for each codec and seed."""
    seeds = (1,) if pieces.quick else (1, 2, 3)
    names = ("fp32", "int8", "int4") if pieces.quick else tuple(LADDER)

    def run(name: str, seed: int) -> FederatedRun:
        up, down, rank = LADDER[name]
        changes: dict[str, dict[str, object]] = {
            "policy": {"lora_rank": rank},
            "federation": {"uplink": up, "downlink": down},
            "data": {"unseen": {}},
        }
        if pieces.quick:
            changes["federation"]["rounds"] = 2
            changes["data"] |= {"episodes": 3}
            changes["training"] = {"local_steps": 4}
        params = demo_params(**changes).model_copy(update={"seed": seed})
        root = prepared(f"{NAME}-{seed}", params)
        features = (CACHE / "features" / f"{NAME}-{seed}").resolve()
        found: FederatedRun = isolated("benchmarks.federations:federated_run", root=str(root), features=str(features))
        return found

    # Seed by seed, so that what an interrupted run has is comparable.
    results: dict[str, list[FederatedRun]] = {name: [] for name in names}
    for seed in seeds:
        for name in names:
            results[name].append(pieces.get(f"{name}, seed {seed}", run, name, seed))
    return outcome(results, pieces)


def outcome(results: dict[str, list[FederatedRun]], pieces: Pieces) -> Outcome:
    """Rows and the plot of what was measured."""
    losses = {name: [run["losses"][-1] for run in runs] for name, runs in results.items()}
    start = median(run["losses"][0] for run in results["fp32"])
    rows, spread, lines = [], {}, {}
    for name, values in losses.items():
        runs = results[name]
        bytes_site = median(value for run in runs for value in run["bytes_site"][1:])
        # Paired by seed: the median of the seeds' own ratios, so that a hard split weighs no more than an easy one.
        worse = Spread.of([value / plain - 1 for value, plain in zip(values, losses["fp32"], strict=True)])
        label = f"held-out loss, {name}"
        rounds, megabytes = len(runs[0]["losses"]) - 1, f"{bytes_site / 1e6:.2f} MB a round"
        work = f"demo federation, {rounds} rounds, {len(runs)} seeds, {megabytes}"
        peer = median(losses["fp32"]) if name != "fp32" else None
        rows.append(pieces.row(label, work, "loss", median(values), (peer, "zk0, fp32")))
        spread[label] = f"{Spread.of(values)}; beside fp32, by seed: {worse.low:+.2%} to {worse.high:+.2%}"
        lines[name] = [[bytes_site / 1e6, median(values), min(values), max(values)]]
    return Outcome(
        title="Loss against bytes",
        about=(
            "The demo's federation (small policy, four simulated sites) from its beginning, under each codec in both "
            "directions, by seed: the seed decides recordings, splits, batches and noise. The loss is that of the last "
            f"round's global model on the sites' held-out episodes (before training: {start:.4f}); lower is better."
        ),
        rows=rows,
        spread=spread,
        series={
            "loss-bytes": {
                "title": "Held-out loss after the demo's rounds, median and range of the seeds",
                "x": "MB a site and round, both ways",
                "y": "held-out loss",
                "lines": lines,
                "log_x": True,
                "joined": False,
                "from_zero": False,
            }
        },
        more={"losses": {name: [run["losses"] for run in runs] for name, runs in results.items()}},
    )


app = plain_app(NAME, "Compare codecs by held-out loss and bytes.", measure)

if __name__ == "__main__":
    app()
