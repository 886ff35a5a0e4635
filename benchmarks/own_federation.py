"""zk0's federation with training left out, so that only what surrounds it is measured.

What is real: server, rounds, in-process engine, ClientApp, messages, digests and checks, codecs,
aggregation, the server's optimiser, resumable state. What is left out, and how:

- The policy is a module that holds SmolVLA's trainable parameters (names in its order, its shapes) and nothing else.
- ``train_locally`` takes no step: the global model is put into the policy, a constant is added to every parameter
  (an unchanged model would not be sent again), and the difference is taken from it.
- ``held_out_loss`` computes nothing and says 1.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import nn

from benchmarks.projects import params_of


class TrainableOnly(nn.Module):
    """The parameters that SmolVLA trains, and nothing else.

    Args:
        shapes: By name.
        cameras: Image features that it claims to know.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], cameras: tuple[str, ...]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in shapes.items():
            self.register_parameter(name.replace(".", "_"), nn.Parameter(torch.randn(*shape, generator=generator)))
        self.config = SimpleNamespace(device="cpu", image_features=dict.fromkeys(cameras), chunk_size=50)


def no_training(loaded: Any, frames: Any, start: Any, task: Any, features: Any = None, moments: Any = None) -> Any:
    """Local training of no steps, after which every parameter has moved a little."""
    from zk0.policy.trainable import load_trainable
    from zk0.training.local import LocalResult

    began = time.perf_counter()
    load_trainable(loaded.policy, start)
    with torch.no_grad():
        torch._foreach_add_(list(loaded.policy.parameters()), 1e-3)
    rate = task.training.learning_rate
    return LocalResult(loaded.policy, 1.0, task.training.batch, time.perf_counter() - began, rate)


def no_evaluation(*_: Any, **__: Any) -> float:
    """A held-out loss that is always the same."""
    return 1.0


@contextmanager
def training_left_out(shapes: Mapping[str, Sequence[int]], cameras: tuple[str, ...]) -> Iterator[None]:
    """Within the block, a federation's sites have the policy that only has trainable parameters, and do not train."""
    from zk0.federation import client_app, site
    from zk0.policy.checkpoint import LoadedPolicy

    loaded = LoadedPolicy(TrainableOnly(shapes, cameras), None, None)  # type: ignore[arg-type]
    with (
        mock.patch.object(site, "load_start", lambda *_, **__: loaded),
        mock.patch.object(site, "with_stats", lambda *_, **__: loaded),
        mock.patch.object(site, "features_for", lambda *_, **__: None),
        mock.patch.object(client_app, "train_locally", no_training),
        mock.patch.object(client_app, "held_out_loss", no_evaluation),
    ):
        yield


def rounds_without_training(*, root: str, shapes: dict[str, list[int]], saving: bool, threads: int) -> dict[str, Any]:
    """Run a project's rounds in process.

    Args:
        root: A prepared project; its number of sites and rounds counts.
        shapes: Of the trainable parameters, by name.
        saving: Whether rounds are saved, behind the next one's back as always.
        threads: Threads of this process.

    Returns:
        ``start_s`` from the call (all imported) to the beginning of round 1; ``round_s`` of each round, from
        beginning to beginning of the next; ``save_s`` of each save; ``bytes_site`` up and down in the last
        round; ``peak_bytes`` and ``baseline_bytes``.
    """
    import tempfile

    from zk0.data.manifest import read_manifests
    from zk0.federation.client_app import app
    from zk0.federation.discovery import meet
    from zk0.federation.inprocess import InProcessGrid
    from zk0.federation.rounds import run_rounds
    from zk0.federation.server import Server
    from zk0.federation.site import warm_policy
    from zk0.federation.state import StateFolder
    from zk0.measuring.timing import peak_bytes, resident_bytes
    from zk0.records.journal import Journal
    from zk0.records.run import Event

    torch.set_num_threads(threads)
    params, sites = params_of(root), read_manifests(Path(root))[0]
    starts: list[float] = []
    saves: list[float] = []

    def listen(event: Event) -> None:
        if event.event == "round-start":
            starts.append(time.perf_counter())

    class Unsaved(StateFolder):
        def save(self, state: Any) -> None:
            """Leave it out."""

    baseline = resident_bytes()
    with (
        tempfile.TemporaryDirectory(prefix="federation-", dir=Path(root)) as folder,
        training_left_out(shapes, sites[0].cameras),
    ):
        states = (StateFolder if saving else Unsaved)(Path(folder) / "state")
        began = time.perf_counter()
        grid = InProcessGrid(app, Path(root), len(sites), params.data.decoded_limit_bytes)
        journal = Journal(Path(folder) / "events.jsonl", listen)
        server = Server(grid, params, "benchmark", (params.policy.base, ""), journal, Path(folder) / "waiting")
        meet(server)
        warm = warm_policy(Path(root), params.policy.base, params.policy.device)
        state = run_rounds(server, states, warm.first, lambda state, seconds: saves.append(seconds or 0.0))
        starts.append(time.perf_counter())
    return {
        "start_s": starts[0] - began,
        "round_s": [after - before for before, after in pairwise(starts)],
        "save_s": saves[1:] if saving else [],
        "bytes_site": {way: state.rows[-1][f"bytes_{way}"] / len(sites) for way in ("up", "down")},
        "peak_bytes": peak_bytes(),
        "baseline_bytes": baseline,
    }
