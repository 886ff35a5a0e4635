"""What a full disk and a killed server cost a federation: nothing. Of the table of docs/RELIABILITY.md."""

from __future__ import annotations

import contextlib
import copy
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from federated_sites import copy_project
from network_federation import NetworkFederation, RunRows, network_federation, signal_family
from safetensors.torch import load_file

from zk0.errors import StageError
from zk0.federation.client_app import app as client_app
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.run import run_federation
from zk0.federation.start import locked_base
from zk0.network.server.resume import watch
from zk0.params import load_params
from zk0.policy.trainable import digest_tensors
from zk0.records.run import Run

pytestmark = [pytest.mark.release, pytest.mark.timeout(1800)]


@pytest.fixture
def network(prepared: Path, params_content: dict[str, Any], tmp_path: Path) -> Iterator[NetworkFederation]:
    params = copy.deepcopy(params_content)
    params["training"] |= {"local_steps": 1, "batch": 2}
    params["federation"] |= {"rounds": 3, "timeout_s": 300.0}
    with network_federation(prepared, tmp_path, params, ("left", "right"), {}) as made:
        yield made


@pytest.fixture
def small_disk(network: NetworkFederation) -> Iterator[Path]:
    """The server's folder for states, on a disk of its own of 64 MB."""
    state = network.root / "state"
    state.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(state)]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"file systems may not be mounted here: {error}")
    try:
        yield state
    finally:
        subprocess.run(["umount", str(state)], check=True)


def test_a_full_disk_and_a_killed_server_cost_nothing(
    network: NetworkFederation, prepared: Path, small_disk: Path, tmp_path: Path
) -> None:
    """The run ends loudly, goes on twice from its last complete round, and ends at the undisturbed run's model."""
    number, since = network.begin()
    RunRows(network, number, since).told("round-start", 1)
    filler = small_disk / "filler"
    _fill(filler)
    with pytest.raises(StageError, match="No space left on device"):
        list(watch(network.server, number, since))
    filler.unlink()

    number, since = network.begin()
    RunRows(network, number, since).told("save", 1)
    killed = {name: network.server.services.running()[name] for name in ("superlink", "superexec")}
    for process in killed.values():
        signal_family(process.pid, signal.SIGKILL)
    assert list(watch(network.server, number, since))[-1].event == "done"  # nobody starts anything again
    running = network.server.services.running()
    assert not {running[name].pid for name in killed} & {process.pid for process in killed.values()}

    report = network.report()
    assert report.rounds == 3 and report.resumed_at_rounds == (0, 1)
    root = copy_project(prepared, tmp_path / "undisturbed")
    params = load_params(network.root / "params.yaml")
    grid = InProcessGrid(client_app, root, 2, params.data.decoded_limit_bytes)
    undisturbed = run_federation(grid, root, params, locked_base(network.root))
    assert report.last_held_out_loss == undisturbed.last_held_out_loss
    assert _model(network.root, report) == _model(root, undisturbed)


def _fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1 << 16))


def _model(root: Path, report: Run) -> str:
    folder = root / "state" / report.run / f"round-{report.rounds:04d}"
    return digest_tensors(load_file(folder / "trainable.safetensors"))
