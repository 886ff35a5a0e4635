"""federate: run the ServerApp on the in-process engine."""

from __future__ import annotations

import signal
from pathlib import Path

import torch
from flwr.app import Context, RecordDict

from zk0.console import console
from zk0.data.manifest import read_manifests
from zk0.errors import StageError
from zk0.federation.client_app import app as client_app
from zk0.federation.inprocess import RUN_ID, InProcessGrid
from zk0.federation.journal import Journal
from zk0.federation.noted import noted
from zk0.federation.paths import RESULTS
from zk0.federation.server_app import app as server_app
from zk0.params import Params
from zk0.stages import features


def run(root: Path, params: Params, again: str = "zk0 federate") -> None:
    """Run or continue the federation; Ctrl-C or SIGTERM loses at most the round in progress.

    Args:
        root: Project folder.
        params: The run's.
        again: The command that goes on with it, for a person who stopped it.

    Raises:
        FederationError: Too few good replies.
        StageError: Stopped by the user; says how to go on.
    """
    torch.set_num_threads(params.threads)
    if params.features.ahead:
        features.build(root, params)
    sites, _ = read_manifests(root)
    grid = InProcessGrid(
        noted(client_app, Journal(root / RESULTS / "events.jsonl")), root, len(sites), params.data.decoded_limit_bytes
    )
    context = Context(run_id=RUN_ID, node_id=0, node_config={}, state=RecordDict(), run_config={"project": str(root)})
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server_app(grid=grid, context=context)
    except KeyboardInterrupt:
        raise StageError(f"stopped; complete rounds are saved, and `{again}` goes on from the last one") from None
    console.print(f"global model in {root / 'checkpoints'}")
