"""zk0's federations with the clock and the memory gauge on them: whole ones, without training, the server alone.

Where training is left out, only what surrounds it is measured. What is real: server, rounds, engine,
ClientApp, messages, digests and checks, codecs, aggregation, the server's optimiser, resumable state. Left out are:

- The policy: a module that holds SmolVLA's trainable parameters (names in its order, its shapes) and nothing else.
- ``train_locally``, which takes no step: the global model is put into the policy, a constant is added to every
  parameter (an unchanged model would not be sent again), and the difference is taken from it.
- ``held_out_loss``, which computes nothing and says 1.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TypedDict
from unittest import mock

import torch
from flwr.clientapp import ClientApp
from torch import nn

from benchmarks.projects import CACHE, camera_params, params_of
from benchmarks.sizes import shapes_of
from benchmarks.standin import Standin
from zk0.data.manifest import read_manifests
from zk0.federation import client_app, site
from zk0.federation.discovery import meet
from zk0.federation.engine import engine_for
from zk0.federation.inprocess import LocalGrid
from zk0.federation.rounds import run_rounds
from zk0.federation.run import run_federation
from zk0.federation.server import Server
from zk0.federation.site import warm_policy
from zk0.federation.start import locked_base
from zk0.federation.state import RoundState, StateFolder
from zk0.measuring.timing import PrivatePeak, peak_bytes, private_bytes, reset_peak, resident_bytes
from zk0.params import Params, with_changes
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.trainable import Tensors, digest_tensors, load_trainable
from zk0.records.files import read, read_rounds
from zk0.records.journal import Journal
from zk0.records.run import Event, Run
from zk0.training.local import LocalResult, LocalTask

_SMALL = 10_000
_whole_process = ExitStack()  # what holds to its end, in a worker that does nothing else


class Seconds(TypedDict):
    """``start_s`` from the call, when all is imported, to round 1; ``round_s`` of each round, from its beginning on."""

    start_s: float
    round_s: list[float]


class FederatedRun(Seconds):
    """Held-out loss of round 0 and of each round; bytes up and down a site in each round; the process's peak memory.

    ``private_bytes`` is the most that the process alone held: without files, and without a Ray cluster's store, where
    workers lay their replies.
    """

    losses: list[float]
    bytes_site: list[float]
    peak_bytes: int
    private_bytes: int


class EmptyRounds(Seconds):
    """Seconds of each save; bytes ``up`` and ``down`` a site in the last round; memory at the beginning and at most.

    ``private_bytes`` is the most that the process alone held, less what it held at the beginning.
    """

    save_s: list[float]
    bytes_site: dict[str, float]
    baseline_bytes: int
    peak_bytes: int
    private_bytes: int


@dataclass
class RoundClock:
    """Notes when each round begins; made when the federation is asked to begin."""

    began: float = field(default_factory=time.perf_counter)
    starts: list[float] = field(default_factory=list)

    def listen(self, event: Event) -> None:
        """Note a round's beginning, of the run's events."""
        if event.event == "round-start":
            self.starts.append(time.perf_counter())

    def seconds(self) -> Seconds:
        """What it has noted, when the last round is over."""
        round_s = [after - before for before, after in pairwise([*self.starts, time.perf_counter()])]
        return {"start_s": self.starts[0] - self.began, "round_s": round_s}


def on_engine(params: Params, workers: int) -> Params:
    """Params whose sites train in so many of Ray's workers, of one thread each; 0 = in this process, as it is.

    The workers are to find ``benchmarks`` where this process has it.
    """
    if not workers:
        return params
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return with_changes(params, {"engine.name": "ray", "engine.workers": workers, "threads": 1})


def federated_run(*, root: str, features: str, workers: int = 0) -> FederatedRun:
    """Run the federation of a prepared project from its beginning.

    Args:
        root: The project; params.yaml says what to run.
        features: Folder where kept features are shared by runs on the same data.
        workers: Ray's, whose memory is not counted; 0 = the sites train in this process.

    Raises:
        RuntimeError: The run ended before its last round.
    """
    os.environ["ZK0_FEATURES"] = features
    folder, params = Path(root), on_engine(params_of(root), workers)
    torch.set_num_threads(params.threads)
    for leftover in ("state", "results/federation", "checkpoints"):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    count = len(read_manifests(folder)[0])
    clock = RoundClock()
    with PrivatePeak() as peak, engine_for(folder, params, count) as grid:
        run_federation(grid, folder, params, locked_base(folder), clock.listen)
        seconds = clock.seconds()
    rows = read_rounds(folder)
    if (made := read(folder, Run).rounds) != params.federation.rounds:
        raise RuntimeError(f"the run ended after {made} of {params.federation.rounds} rounds")
    return {
        "losses": [row.held_out_loss for row in rows],
        "bytes_site": [(row.bytes_up + row.bytes_down) / count for row in rows[1:]],
        "peak_bytes": peak_bytes(),
        "private_bytes": peak.most,
        **seconds,
    }


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
        self.config = SimpleNamespace(device="cpu", image_features=dict.fromkeys(cameras), chunk_size=50, num_steps=10)


def no_training(
    loaded: LoadedPolicy, _frames: object, start: Tensors, task: LocalTask, *_: object, **__: object
) -> LocalResult:
    """Local training of no steps, after which every parameter has moved a little."""
    began = time.perf_counter()
    load_trainable(loaded.policy, start)
    with torch.no_grad():
        torch._foreach_add_(list(loaded.policy.parameters()), 1e-3)
    rate = task.training.learning_rate
    return LocalResult(loaded.policy, 1.0, task.training.batch, time.perf_counter() - began, rate)


@contextmanager
def training_left_out(shapes: Mapping[str, Sequence[int]], cameras: tuple[str, ...]) -> Iterator[None]:
    """Within the block, a federation's sites have the policy that only has trainable parameters, and do not train."""
    loaded = LoadedPolicy(TrainableOnly(shapes, cameras), None, None)
    with (
        mock.patch.multiple(
            site,
            load_start=lambda *_, **__: loaded,
            with_stats=lambda *_, **__: loaded,
            features_for=lambda *_, **__: None,
        ),
        mock.patch.multiple(client_app, train_locally=no_training, held_out_loss=lambda *_, **__: 1.0),
    ):
        yield


def app_without_training(shapes: Mapping[str, Sequence[int]], cameras: tuple[str, ...]) -> ClientApp:
    """The sites' ClientApp for a worker of Ray, which from then on leaves training out."""
    _whole_process.enter_context(training_left_out(shapes, cameras))
    return client_app.app


class _Unsaved(StateFolder):
    """Rounds of a federation that are not saved."""

    def save(self, state: RoundState) -> None:
        """Nothing: the round is not saved."""


def rounds_without_training(
    *, root: str, shapes: dict[str, list[int]], saving: bool, threads: int, workers: int = 0
) -> EmptyRounds:
    """Run a project's rounds.

    Args:
        root: A prepared project; its number of sites and rounds counts.
        shapes: Of the trainable parameters, by name.
        saving: Whether rounds are saved, behind the next one's back as always.
        threads: Threads of this process.
        workers: Ray's, whose memory is not counted; 0 = the sites are in this process.
    """
    torch.set_num_threads(threads)
    params, sites = on_engine(params_of(root), workers), read_manifests(Path(root))[0]
    app = partial(app_without_training, shapes, sites[0].cameras) if workers else lambda: client_app.app
    saves: list[float] = []
    baseline, private = resident_bytes(), private_bytes()
    with (
        PrivatePeak() as peak,
        tempfile.TemporaryDirectory(prefix="federation-", dir=Path(root)) as folder,
        training_left_out(shapes, sites[0].cameras),
    ):
        states = (StateFolder if saving else _Unsaved)(Path(folder) / "state")
        clock = RoundClock()
        journal = Journal(Path(folder) / "events.jsonl", clock.listen)
        with engine_for(Path(root), params, len(sites), app) as grid:
            server = Server(grid, params, "benchmark", (params.policy.base, ""), journal, Path(folder) / "waiting")
            meet(server)
            warm = warm_policy(Path(root), params.policy.base, params.policy.device)
            state = run_rounds(server, states, warm.first, lambda _, seconds: saves.append(seconds or 0.0))
            last, seconds = state.rounds[-1], clock.seconds()
    return {
        "save_s": saves[1:] if saving else [],
        "bytes_site": {way: total / len(sites) for way, total in (("up", last.bytes_up), ("down", last.bytes_down))},
        "peak_bytes": peak_bytes(),
        "baseline_bytes": baseline,
        "private_bytes": peak.most - private,
        **seconds,
    }


def server_peak(*, sites: int, values: int, rounds: int, strategy: str, threads: int) -> dict[str, int]:
    """Run a server's rounds, saving included, and tell its peak memory while a stand-in for the network answers it.

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
    torch.set_num_threads(threads)
    _serve(sites, shapes_of(_SMALL), rounds, strategy)
    reset_peak()
    baseline = resident_bytes()
    _serve(sites, shapes_of(values), rounds, strategy)
    return {"baseline_bytes": baseline, "peak_bytes": peak_bytes(), "trainable_bytes": values * 4}


def _serve(sites: int, shapes: dict[str, tuple[int, ...]], rounds: int, strategy: str) -> None:
    """Run a server's rounds on a model of these shapes."""
    generator = torch.Generator().manual_seed(1)
    params = camera_params(Path(), federation={"strategy": strategy, "rounds": rounds})
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="server-", dir=CACHE) as folder:
        journal = Journal(Path(folder) / "events.jsonl")
        start = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        grid = LocalGrid(sites, Standin(shapes, digest_tensors(start)).answer)
        server = Server(grid, params, "benchmark", ("random:full", ""), journal, Path(folder) / "waiting")
        meet(server)
        first = [start]
        del start  # nobody else is to hold what the rounds begin with
        run_rounds(server, StateFolder(Path(folder) / "state"), first.pop(), lambda *_: None)
