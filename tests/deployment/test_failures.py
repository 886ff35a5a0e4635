"""What becomes of a federation when sites lie, die, hang, are cut off or shut out: the table of docs/RELIABILITY.md.

One run of four sites meets all of it; each test looks at one thing that happened.
"""

from __future__ import annotations

import contextlib
import copy
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from federated_sites import copy_project
from network_federation import Cable, NetworkFederation, network_federation, signal_family
from network_services import wait_until
from safetensors.torch import load_file

from zk0.deployment.serving.runs import halt, runs_of, watch
from zk0.errors import StageError
from zk0.federation.client_app import app as client_app
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.journal import read_lines
from zk0.federation.run import locked_base, run_federation
from zk0.params import load_params
from zk0.policy.trainable import digest_tensors

# Two minutes on two quiet cores; on busy ones every message waits for a process that Flower starts.
pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]
NAMES = ("steady", "hung", "killed", "cut")
# Nothing that a federation needs: it runs though they are asked for and away.
AWAY = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "PREFECT_API_URL": "http://127.0.0.1:9/api"}


@pytest.fixture(scope="module")
def network(
    prepared: Path, params_content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NetworkFederation]:
    params = copy.deepcopy(params_content)
    params["training"] |= {"local_steps": 1, "batch": 2}
    params["federation"] |= {"rounds": 99, "min_replies": 0.25, "timeout_s": 240.0}
    with pytest.MonkeyPatch.context() as patch, Cable.laid() as cable:
        for name, value in AWAY.items():
            patch.setenv(name, value)
        with network_federation(prepared, tmp_path_factory.mktemp("failures"), params, NAMES, {"cut": cable}) as made:
            yield made


@pytest.fixture(scope="module")
def rounds(network: NetworkFederation) -> dict[str, list[dict[str, Any]]]:
    """The rows of a run: with ``lies``, ``without`` three sites, with them ``back``, and with one ``revoked``."""
    _, hung, killed, cut = network.sites
    assert cut.cable is not None
    number, since = network.begin(client_app="spoiling_app:app")
    rows = _Rows(network, number, since)
    lies = rows.until(lambda last: last["round"] == 1)
    rows.told("round-start", 2)
    killed.kill()
    hung.freeze()
    cut.cable.cut()
    without = rows.until(lambda last: last["round"] == 4)
    killed.start()
    hung.thaw()
    cut.cable.mend()
    back = rows.until(lambda last: not last["left_out"])
    network.server.registry.revoke("killed", "laptop stolen")
    revoked = rows.until(lambda last: bool(last["left_out"]))
    halt(network.server, number)
    wait_until(lambda: runs_of(network.server, number)[0].finished, "the run's end")
    return {"lies": lies, "without": without, "back": back, "revoked": revoked}


class _Rows:
    """The rows of a run in progress."""

    def __init__(self, network: NetworkFederation, number: int, since: datetime) -> None:
        self._network, self._number, self._seen = network, number, 0
        self._since = since.isoformat(timespec="milliseconds")  # what was said before is of an earlier run
        self._results = network.root / "results" / "federation"

    def until(self, enough: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """The rows since the last call, up to the first with which it is enough."""

        def found() -> list[dict[str, Any]] | None:
            rows = [row for row in read_lines(self._results / "rounds.jsonl") if row["round"] > self._seen]
            end = next((place for place, row in enumerate(rows, 1) if enough(row)), None)
            self._check()
            return rows[:end] if end else None

        rows = wait_until(found, f"a round after {self._seen}", 900)
        self._seen = rows[-1]["round"]
        return list(rows)

    def told(self, what: str, number: int) -> None:
        """Wait until this run has said something of a round; rows may still be those of an earlier one."""

        def found() -> bool:
            self._check()
            events = [one for one in read_lines(self._results / "events.jsonl") if one["time"] >= self._since]
            return any(event["event"] == what and event["round"] == number for event in events)

        wait_until(found, f"{what} of round {number}", 300)

    def _check(self) -> None:
        (run,) = runs_of(self._network.server, self._number)
        assert not run.finished, run.details


def reasons(rows: list[dict[str, Any]], site: str) -> set[str]:
    return {row["left_out"].get(site, "") for row in rows}


def test_lies_are_left_out_and_the_round_goes_on(rounds: dict[str, list[dict[str, Any]]]) -> None:
    (first,) = rounds["lies"]
    assert first["left_out"]["hung"] == "the reply is for round 7, expected 1"
    assert first["left_out"]["killed"] == "the reply is for partition 0, expected 2"
    assert "its reply is longer than" in first["left_out"]["cut"]
    assert first["sites"]["steady"]["examples"] == 2 and "examples" not in first["sites"]["cut"]


@pytest.mark.parametrize("site", ["killed", "hung", "cut"])
def test_a_site_that_is_gone_is_left_out_and_the_round_goes_on(
    rounds: dict[str, list[dict[str, Any]]], site: str
) -> None:
    assert [row["round"] for row in rounds["without"]] == [2, 3, 4]
    assert reasons(rounds["without"], site) == {"the site failed: its node is away"}
    assert all("examples" in row["sites"]["steady"] for row in rounds["without"])


@pytest.mark.parametrize("site", ["killed", "hung", "cut"])
def test_it_takes_part_again_after_three_rounds(rounds: dict[str, list[dict[str, Any]]], site: str) -> None:
    last = rounds["back"][-1]
    assert last["left_out"] == {} and last["sites"][site]["examples"] == 2


def test_a_revoked_key_is_refused_within_a_round(rounds: dict[str, list[dict[str, Any]]]) -> None:
    *before, last = rounds["revoked"]
    assert len(before) <= 1 and last["left_out"] == {"killed": "the site failed: it is not admitted any more"}


def test_nothing_of_it_needs_mlflow_or_prefect(rounds: dict[str, list[dict[str, Any]]]) -> None:
    """Both are asked for in the environment of every service, and away."""
    assert len([row for part in rounds.values() for row in part]) >= 6


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
    network.params(federation={"rounds": 3, "min_replies": 1.0, "timeout_s": 300.0})
    both = {"sites": "steady,hung"}
    number, since = network.begin(**both)
    _Rows(network, number, since).told("round-start", 1)
    filler = small_disk / "filler"
    _fill(filler)
    with pytest.raises(StageError, match="No space left on device"):
        list(watch(network.server, number, since))
    filler.unlink()

    number, since = network.begin(**both)
    _Rows(network, number, since).told("save", 1)
    for name, process in network.server.services.running().items():
        if name in ("superlink", "superexec"):
            signal_family(process.pid, signal.SIGKILL)
    wait_until(lambda: not {"superlink", "superexec"} & network.server.services.running().keys(), "the server's end")
    assert network.server.start() == ["superlink", "superexec"]
    network.run(**both)

    report = network.report()
    assert report["rounds"] == 3 and report["resumed_at_rounds"] == [0, 1]
    root = copy_project(prepared, tmp_path / "undisturbed")
    params = load_params(network.root / "params.yaml")
    grid = InProcessGrid(client_app, root, 2, params.data.decoded_limit_bytes)
    undisturbed = run_federation(grid, root, params, locked_base(network.root))
    assert report["last_held_out_loss"] == undisturbed["last_held_out_loss"]
    assert _model(network.root, report) == _model(root, undisturbed)


def _fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1 << 16))


def _model(root: Path, report: dict[str, Any]) -> str:
    folder = root / "state" / report["run"] / f"round-{report['rounds']:04d}"
    return digest_tensors(load_file(folder / "trainable.safetensors"))
