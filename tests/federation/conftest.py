"""A server that has met its sites, and what they answer in the first round."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from federated_sites import BASE, LIMIT, MakeServer, copy_project
from flwr.clientapp import ClientApp
from lying_federation import LyingFederation, lying_federation

from zk0.federation import protocol, wire
from zk0.federation.broadcast import Model
from zk0.federation.client_app import app as client_app
from zk0.federation.discovery import meet
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.server import Server
from zk0.federation.site import open_site
from zk0.federation.state import RoundState
from zk0.federation.statistics import Moments, merge_all, moments_of
from zk0.files import write_json
from zk0.params import Params, parse_params
from zk0.pipeline import prepare
from zk0.policy.checkpoint import LoadedPolicy, Stats
from zk0.policy.trainable import Tensors
from zk0.records.journal import Journal
from zk0.records.run import Round
from zk0.sources_lock import resolve_sources


@pytest.fixture(scope="module")
def quick(small_params: Params) -> Params:
    """One step of two frames, and half of the sites are enough."""
    training = small_params.training.model_copy(update={"local_steps": 1, "batch": 2})
    federation = small_params.federation.model_copy(update={"min_replies": 0.5})
    return small_params.model_copy(update={"training": training, "federation": federation})


@pytest.fixture
def make_server(prepared: Path, quick: Params, tmp_path: Path) -> MakeServer:
    """A server that has met its two sites: ``make_server(app, grid=..., **federation)``."""

    def make(app: ClientApp = client_app, grid: type[InProcessGrid] = InProcessGrid, **federation: Any) -> Server:
        params = quick.model_copy(update={"federation": quick.federation.model_copy(update=federation)})
        network = grid(app, prepared, 2, LIMIT)
        server = Server(network, params, "test", BASE, Journal(tmp_path / "events.jsonl"), tmp_path / "waiting")
        meet(server)
        server.begin_round()
        return server

    return make


@pytest.fixture(scope="module")
def moments(prepared: Path) -> Moments:
    """Of both sites."""
    return merge_all([moments_of(open_site(prepared, partition, LIMIT).train_frames) for partition in (0, 1)])


@pytest.fixture(scope="module")
def stats(moments: Moments) -> Stats:
    return moments.normalisation()


@pytest.fixture
def project(prepared: Path, tmp_path: Path) -> Path:
    """A project of its own with the prepared manifests."""
    return copy_project(prepared, tmp_path / "project")


@pytest.fixture
def state(start: Tensors) -> RoundState:
    """Before the first round."""
    return RoundState(0, start, (Round(round=0, held_out_loss=1.0),), {})


@pytest.fixture(scope="module")
def updates(
    prepared: Path, quick: Params, stats: Stats, _untrained: tuple[LoadedPolicy, Tensors],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Tensors, float]]:  # fmt: skip
    """Each site's update and weight in the first round."""
    folder = tmp_path_factory.mktemp("updates")
    grid = InProcessGrid(client_app, prepared, 2, LIMIT)
    server = Server(grid, quick, "test", BASE, Journal(folder / "events.jsonl"), folder)
    meet(server)
    replies = server.ask(protocol.TRAIN, 1, Model.of(dict(_untrained[1])), stats)
    return {r.site: (wire.unpack(r.content, protocol.DELTA), float(r.values["examples"])) for r in replies}


@pytest.fixture(scope="session")
def lying(params_content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> LyingFederation:
    """Four sites of one training episode each, one round of one step, and three of four are enough."""
    content = copy.deepcopy(params_content)
    content["data"]["partition"]["sites"] = 4
    content["training"] |= {"local_steps": 1, "batch": 2}
    content["federation"] |= {"rounds": 1, "min_replies": 0.75}
    params, prepared = parse_params(content), tmp_path_factory.mktemp("four")
    write_json(prepared / "sources.lock.json", resolve_sources(params, prepared))
    prepare.run(prepared, params)
    return lying_federation(prepared, tmp_path_factory.mktemp("lying"), params)
