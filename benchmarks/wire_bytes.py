"""Bytes a site and round, both ways, of the 450 M policy: each codec beside what peers send.

Two real rounds of the in-process engine each, training left out; its messages are counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Outcome, plain_app
from benchmarks.pieces import Pieces, isolated
from benchmarks.projects import camera_params, prepared, use_params

if TYPE_CHECKING:
    from benchmarks.federations import EmptyRounds

NAME = "wire_bytes"
SITES = 2
ALL = "all weights, fp32, Flower ArrayRecord: down to train, up, down to evaluate"
TRAINED = "trainable weights, fp32, Flower ArrayRecord: down to train, up"
# Name: uplink, downlink, rank of low-rank adapters.
LADDER = {
    "fp32": ("fp32", "fp32", 0),
    "bf16": ("bf16", "bf16", 0),
    "int8": ("int8", "int8", 0),
    "int4": ("int4", "int4", 0),
    "LoRA rank 16, int8": ("int8", "int8", 16),
}


def measure(pieces: Pieces) -> Outcome:
    """Count what each codec sends, and what a peer would."""
    base, which = ("random:nano", "2 M") if pieces.quick else ("random:full", "450 M")
    dataset = Path(isolated("benchmarks.recordings:cameras", episodes=2 * SITES, frames=4))
    root = prepared(NAME, camera_params(dataset, SITES, policy={"base": base}))

    def own(name: str) -> dict[str, float]:
        up, down, rank = LADDER[name]
        federation = {"rounds": 2, "uplink": up, "downlink": down}
        changes: dict[str, dict[str, object]] = {"policy": {"base": base}, "federation": federation}
        use_params(root, camera_params(dataset, SITES, **changes, features={"cache": "off"}))
        shapes = isolated("benchmarks.own_training:trainable_shapes", base=base, rank=rank)
        run = "benchmarks.federations:rounds_without_training"
        done: EmptyRounds = isolated(run, root=str(root), shapes=shapes, saving=False, threads=2)
        return done["bytes_site"]

    peer = pieces.get("peers' messages", "benchmarks.peers.flower:record_bytes", base=base)
    ours = {name: pieces.get(name, own, name) for name in LADDER}
    everything, trained = 3 * peer["all"], 2 * peer["trainable"]
    rows = []
    for name, counted in ours.items():
        total = counted["up"] + counted["down"]
        up, down, rank = LADDER[name]
        what = f"LoRA rank {rank}, B matrices alone" if rank else "trainable parameters"
        work = f"{which} policy, {what}, {up} up, {down} down, to train and to evaluate"
        title = f"bytes a round, {name}"
        rows.append(pieces.row(title, work, "bytes", total, (everything, ALL)))
        rows.append(pieces.row(f"{title}, beside trainable fp32", work, "bytes", total, (trained, TRAINED)))
    return Outcome(
        title="Bytes on the wire",
        about=(
            "Bytes of all arrays in all messages between the server and one site in one round, both ways: counted in "
            "the second of two rounds of the in-process engine, with training left out. A site that has the global "
            "model from the evaluation before is not sent it again to train. The peers' messages are "
            "made with Flower's own `ArrayRecord` of the same policy: the closest peer sends all weights, down to "
            "train, up, and down again to evaluate."
        ),
        rows=rows,
        more={"up_and_down": ours},
    )


app = plain_app(NAME, "Count bytes a site and round under each codec, beside peers.", measure)

if __name__ == "__main__":
    app()
