"""From an observation to a chunk of actions: zk0's served model beside LeRobot's ``select_action``.

Both get the same raw observation (two cameras of bytes, a state, a sentence) and give joint targets; LeRobot's
queue is emptied before each call, so that each computes a chunk.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.harness import Outcome, plain_app
from benchmarks.pieces import Pieces, isolated
from benchmarks.projects import CACHE, ROOT
from zk0.measuring.timing import Spread, alternated

NAME = "latency"
PEER = "lerobot 0.6.1 predict_action"


def latencies(
    *, checkpoint: str, height: int, width: int, chunks: int, device: str, threads: int
) -> dict[str, list[float]]:
    """Seconds of single chunks, ours and LeRobot's in turns, in one process.

    Args:
        checkpoint: A folder in LeRobot's format; both load it for themselves.
        height, width: Of the observation's pictures.
        chunks: Of each.
        device: cpu or cuda.
        threads: Threads of this process.
    """
    import torch  # noqa: PLC0415 - it loads torch, which the process that measures does alone
    from lerobot.common.control_utils import predict_action  # noqa: PLC0415 - likewise

    from zk0.policy.checkpoint import load_checkpoint  # noqa: PLC0415 - likewise
    from zk0.tracking.serving import PolicyModel  # noqa: PLC0415 - likewise

    torch.set_num_threads(threads)
    served = PolicyModel()
    context: Any = SimpleNamespace(artifacts={"checkpoint": checkpoint}, model_config={"device": device})
    served.load_context(context)
    loaded = load_checkpoint(checkpoint, device)
    loaded.policy.eval()
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for name in loaded.cameras}
    state = {"observation.state": rng.normal(0, 20, 6).astype(np.float32)}
    sentence = "push the red cube to the left"

    def ours(number: int) -> None:
        served.predict(context, {**images, **state, "task": sentence}, {"seed": number})  # type: ignore[arg-type]

    def peer(_: int) -> None:
        loaded.policy.reset()
        predict_action(
            {**images, **state},
            loaded.policy,
            torch.device(device),
            loaded.preprocess,
            loaded.postprocess,
            use_amp=False,
            task=sentence,
        )

    return alternated({"ours": ours, "peer": peer}, chunks)


def full_checkpoint(*, folder: str) -> None:
    """Write the 450 M policy with random weights, unless it is there."""
    from zk0.policy.checkpoint import save_checkpoint  # noqa: PLC0415 - likewise
    from zk0.policy.start import load_start  # noqa: PLC0415 - likewise

    if not (Path(folder) / "model.safetensors").is_file():
        save_checkpoint(load_start(Path(), "random:full", "cpu"), Path(folder))


def measure(pieces: Pieces) -> Outcome:
    """Time chunks of the full-size and the small policy."""
    full = (CACHE / "full-random").resolve()
    small, quick = ROOT / "models/nano-base", pieces.quick
    settings = {"2 M": (small, 96, 96, 10 if quick else 100), "450 M": (full, 480, 640, 2 if quick else 10)}
    isolated("benchmarks.latency:full_checkpoint", folder=str(full))
    rows, spread = [], {}
    for size, (checkpoint, height, width, chunks) in settings.items():
        seconds = pieces.get(
            size,
            "benchmarks.latency:latencies",
            checkpoint=str(checkpoint),
            height=height,
            width=width,
            chunks=chunks,
            device="cpu",
            threads=2,
        )
        work = (
            f"{size} policy, two {height}x{width} cameras, batch 1, raw observation to joint targets, {chunks} chunks"
        )
        for share in (50, 95):
            name = f"action chunk, {size}, p{share}"
            ours, peer = (float(np.percentile(seconds[side], share)) for side in ("ours", "peer"))
            rows.append(pieces.row(name, work, "s", ours, (peer, PEER)))
        spread[f"{size}, zk0"] = f"{Spread.of(seconds['ours'])} s"
        spread[f"{size}, {PEER}"] = f"{Spread.of(seconds['peer'])} s"
    return Outcome(
        title="Latency of an action chunk",
        about=(
            "The model as `zk0` serves it (behind MLflow's `predict`) beside LeRobot's `predict_action`, the function "
            "its own robot control calls, which normalises, calls `select_action` and turns the action back into joint "
            "targets. Same checkpoint, same observation, in turns in one process."
        ),
        rows=rows,
        spread=spread,
    )


app = plain_app(NAME, "Time action chunks, beside LeRobot's.", measure)

if __name__ == "__main__":
    app()
