"""How much memory the server needs, over the size of what it trains, by number of sites.

Beside Flower's FedAvg, which holds all replies before it averages.
"""

from __future__ import annotations

from benchmarks.harness import Outcome, plain_app
from benchmarks.pieces import Pieces
from benchmarks.sizes import FULL

NAME = "server_memory"
PEER = "Flower 1.41 FedAvg"
STRATEGIES = ("fedavg", "fedadam")
ROUNDS = 2


def measure(pieces: Pieces) -> Outcome:
    """One process for each strategy and number of sites."""
    values, own_sites, peer_sites = (FULL // 10, (4, 16), (4, 16)) if pieces.quick else (FULL, (4, 16, 64), (4, 16))

    def peak(name: str, target: str, sites: int, **options: object) -> float:
        """Peak memory less the baseline, over the trainable parameters' bytes."""
        size = {"sites": sites, "values": values, "rounds": ROUNDS}
        result = pieces.get(f"{name}, {sites} sites", f"benchmarks.{target}:server_peak", **size, **options)
        return float((result["peak_bytes"] - result["baseline_bytes"]) / result["trainable_bytes"])

    ours = {s: {n: peak(s, "federations", n, strategy=s, threads=2) for n in own_sites} for s in STRATEGIES}
    peers = {n: peak("Flower FedAvg", "peers.flower", n) for n in peer_sites}
    work = f"{ROUNDS} rounds, {values / 1e6:.0f} M trainable fp32 parameters, checks and saving on"
    rows = []
    for strategy, by_sites in ours.items():
        for n, factor in by_sites.items():
            peer = (peers.get(n) if strategy == "fedavg" else None, PEER)
            rows.append(pieces.row(f"server memory, {strategy}, {n} sites", work, "x trainable", factor, peer))
    growth = {strategy: max(by.values()) / min(by.values()) - 1 for strategy, by in ours.items()}
    told = ", ".join(f"{share:.1%} ({strategy})" for strategy, share in growth.items())
    lines = {f"zk0, {strategy}": [[float(n), f] for n, f in by.items()] for strategy, by in ours.items()}
    lines[PEER] = [[float(n), f] for n, f in peers.items()]
    return Outcome(
        title="Server memory",
        about=(
            "The server alone in a process: its peak resident memory while it runs rounds, less what the process holds "
            "after its imports and a run of a tiny model (the kernel's high-water mark, reset at that point), over the "
            "bytes of the trainable parameters. A stand-in for the network makes the sites' replies one at a time, "
            "each a new random update, encoded and digested as a site encodes it; the reply being made is counted, as "
            "a received one would be. "
            f"From {own_sites[0]} to {own_sites[-1]} sites ours varies by {told}."
        ),
        rows=rows,
        series={
            "server-memory": {
                "title": "Peak memory of the server",
                "x": "sites",
                "y": "times the trainable parameters' bytes",
                "lines": lines,
                "log_x": True,
            }
        },
        more={"growth": growth},
    )


app = plain_app(NAME, "Measure the server's peak memory by number of sites, beside Flower's FedAvg.", measure)

if __name__ == "__main__":
    app()
