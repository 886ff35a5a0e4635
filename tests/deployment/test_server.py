"""A federation over TLS on loopback: the server's services, the sites' trainers and nodes, and what comes of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from federated_sites import copy_project
from network_federation import NetworkFederation, network_federation
from safetensors.torch import load_file

from zk0.federation.client_app import app as client_app
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.run import locked_base, run_federation
from zk0.files import read_json, write_json
from zk0.params import load_params
from zk0.policy.trainable import digest_tensors

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def running(
    prepared: Path, params_content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NetworkFederation]:
    params = copy.deepcopy(params_content)
    params["training"] |= {"local_steps": 1, "batch": 2}
    with network_federation(prepared, tmp_path_factory.mktemp("network"), params) as made:
        yield made


def test_the_global_model_is_the_in_process_engines(running: NetworkFederation, prepared: Path, tmp_path: Path) -> None:
    running.run()

    root = copy_project(prepared, tmp_path / "here")
    write_json(root / "sources.lock.json", read_json(running.root / "sources.lock.json"))
    params = load_params(running.root / "params.yaml")
    grid = InProcessGrid(client_app, root, 2, params.data.decoded_limit_bytes)
    here = run_federation(grid, root, params, locked_base(root))

    there = running.report()
    digests = [
        digest_tensors(load_file(next((folder / "state" / run["run"]).glob("round-0002")) / "trainable.safetensors"))
        for folder, run in ((running.root, there), (root, here))
    ]
    assert digests[0] == digests[1]
    assert there["last_held_out_loss"] == here["last_held_out_loss"]
