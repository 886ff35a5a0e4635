"""zk0's server alone: its peak memory while a stand-in for the network hands it replies one at a time."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Message, RecordDict

from benchmarks.projects import CACHE, camera_params
from benchmarks.sizes import shapes_of
from zk0.data.manifest import Manifest
from zk0.so100 import JOINTS

_SMALL = 10_000


def server_peak(*, sites: int, values: int, rounds: int, strategy: str, threads: int) -> dict[str, Any]:
    """Run a server's rounds, saving included, and tell its peak memory.

    A server of a tiny model runs first: what libraries load when they are first used is no part of the model's cost.
    Each reply is a fresh random update, encoded and digested as a site encodes it, and the server keeps no more of
    it than it wants to. The reply being made is in the same process, as a received one would be.

    Args:
        sites: Nodes.
        values: Trainable parameters, fp32.
        rounds: Rounds to run.
        strategy: fedavg, fedadam, ...
        threads: Threads of this process.

    Returns:
        ``baseline_bytes`` held after imports and that tiny run, before the model exists; ``peak_bytes``;
        ``trainable_bytes``.
    """
    from zk0.measuring.timing import peak_bytes, reset_peak, resident_bytes

    torch.set_num_threads(threads)
    _serve(sites, shapes_of(_SMALL), rounds, strategy)
    reset_peak()
    baseline = resident_bytes()
    _serve(sites, shapes_of(values), rounds, strategy)
    return {"baseline_bytes": baseline, "peak_bytes": peak_bytes(), "trainable_bytes": values * 4}


def _serve(sites: int, shapes: dict[str, tuple[int, ...]], rounds: int, strategy: str) -> None:
    """Run a server's rounds on a model of these shapes."""
    from zk0.federation import protocol, wire
    from zk0.federation import rounds as federation
    from zk0.federation import server as serving
    from zk0.federation.discovery import meet
    from zk0.federation.inprocess import LocalGrid
    from zk0.federation.state import StateFolder
    from zk0.federation.statistics import Moments
    from zk0.records.journal import Journal

    generator = torch.Generator().manual_seed(1)
    one, none = np.ones(6), np.zeros(6)  # of one frame, which varies from nothing
    moments = Moments(np.array(1.0), one, none, one, none, one, one, none, none)

    def answer(message: Message) -> Message:
        kind = message.metadata.message_type
        header_kind = protocol.SiteTask if kind in (protocol.TRAIN, protocol.EVALUATE) else protocol.Header
        asked, _ = protocol.read(message.content, header_kind)
        content, numbers = RecordDict(), dict[str, Any]()
        if kind == protocol.SUMMARY:
            numbers = {"manifest": _manifest(message.metadata.dst_node_id - 1).summary()}
        elif kind == protocol.STATISTICS:
            wire.put(content, protocol.MOMENTS, wire.encode(moments.to_tensors()))
        elif kind == protocol.TRAIN:
            delta = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
            wire.put(content, protocol.DELTA, wire.encode(delta))
            numbers = {"examples": 1, "frames": 1, "train_loss": 1.0, "train_s": 1.0, "learning_rate": 1e-4}
        else:
            numbers = {"held_out_loss": 1.0, "frames": 1, "evaluate_s": 1.0}
        header = protocol.Header(run=asked.run, round=asked.round, partition=asked.partition)
        protocol.write(content, header, **numbers)
        return Message(content, reply_to=message)

    params = camera_params(Path(), federation={"strategy": strategy, "rounds": rounds})
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="server-", dir=CACHE) as folder:
        journal = Journal(Path(folder) / "events.jsonl")
        grid = LocalGrid(sites, answer)
        server = serving.Server(grid, params, "benchmark", ("random:full", ""), journal, Path(folder) / "waiting")
        meet(server)
        federation.run_rounds(
            server,
            StateFolder(Path(folder) / "state"),
            {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()},  # nobody else holds it
            lambda state, seconds: None,
        )


def _manifest(partition: int) -> Manifest:
    """Of a site whose data nobody looks at."""
    return Manifest(
        site=f"site-{partition}",
        partition=partition,
        role="site",
        source="none",
        revision="none",
        repo_id="none",
        root="none",
        robot_type="so101",
        fps=30,
        cameras=(),
        camera_sources={},
        image_shapes={},
        joints=JOINTS,
        tasks=(),
        train_episodes=(0,),
        held_out_episodes=(1,),
        train_frames=1,
        held_out_frames=1,
        episode_digests={},
        digest="none",
    )
