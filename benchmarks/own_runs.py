"""Whole federated runs with the clock and the memory gauge on them."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.projects import params_of


def federated_run(*, root: str, features: str) -> dict[str, Any]:
    """Run the federation of a prepared project in process, from its beginning.

    Args:
        root: The project; params.yaml says what to run.
        features: Folder where kept features are shared by runs on the same data.

    Returns:
        ``losses``: held-out loss of round 0 and of each round. ``bytes_site``: bytes up and down a site in each
        round. ``round_s``: seconds of each round, from beginning to beginning of the next. ``start_s``, ``peak_bytes``.
    """
    os.environ["ZK0_FEATURES"] = features
    import torch

    from zk0.data.manifest import read_manifests
    from zk0.federation.client_app import app
    from zk0.federation.inprocess import InProcessGrid
    from zk0.federation.run import locked_base, run_federation
    from zk0.measuring.timing import peak_bytes
    from zk0.records.files import read, read_rounds
    from zk0.records.run import Event, Run

    folder, params = Path(root), params_of(root)
    torch.set_num_threads(params.threads)
    for leftover in ("state", "results/federation", "checkpoints"):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    starts: list[float] = []

    def listen(event: Event) -> None:
        if event.event == "round-start":
            starts.append(time.perf_counter())

    count = len(read_manifests(folder)[0])
    began = time.perf_counter()
    grid = InProcessGrid(app, folder, count, params.data.decoded_limit_bytes)
    run_federation(grid, folder, params, locked_base(folder), listen)
    ended = time.perf_counter()
    rows = read_rounds(folder)
    assert read(folder, Run).rounds == params.federation.rounds
    return {
        "losses": [row.held_out_loss for row in rows],
        "bytes_site": [(row.bytes_up + row.bytes_down) / count for row in rows[1:]],
        "round_s": [after - before for before, after in zip(starts, [*starts[1:], ended], strict=True)],
        "start_s": starts[0] - began,
        "peak_bytes": peak_bytes(),
    }
