"""The engine on Ray: the same model for any number of workers, whatever becomes of them."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from dying_sites import dying
from federated_sites import BASE, copy_project
from flwr.app import ArrayRecord, Message, RecordDict
from telling_sites import SENT, TOLD, telling
from tests_support import REPO

from zk0.digests import digest_folder
from zk0.federation import protocol
from zk0.federation.engine import engine_for
from zk0.federation.run import run_federation
from zk0.federation.server import FederationError
from zk0.federation.site import forget
from zk0.files import read_json, write_json
from zk0.params import Params, parse_params, with_changes
from zk0.pipeline import prepare
from zk0.policy.checkpoint import save_checkpoint
from zk0.policy.start import load_start
from zk0.records.files import read_lines
from zk0.records.run import Run
from zk0.sources_lock import resolve_sources

pytest.importorskip("ray")
from ray.cluster_utils import Cluster as Machines

from zk0.federation.scale.cluster import EngineError, cluster_for
from zk0.federation.scale.mirror import NODE

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def params(params_content: dict[str, Any]) -> Params:
    """Four sites that carry all that a site can carry from round to round; three rounds of one step."""
    content = copy.deepcopy(params_content)
    content["data"]["partition"]["sites"] = 4
    content["training"] |= {"local_steps": 1, "batch": 2, "keep_moments": True}
    content["federation"] |= {"rounds": 3, "uplink": "int4", "downlink": "int8", "local": ["*layernorm*"]}
    return parse_params(content)


@pytest.fixture(scope="module")
def prepared_four(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("four")
    write_json(root / "sources.lock.json", resolve_sources(params, root))
    prepare.run(root, params)
    return root


@pytest.fixture(scope="module")
def alone(prepared_four: Path, params: Params, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What one process makes of them."""
    root = copy_project(prepared_four, tmp_path_factory.mktemp("alone"))
    forget()
    return federated(root, params)


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    """Workers import the tests' own modules, and do not starve beside other tests, as they would at Ray's niceness."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("PYTHONPATH", str(REPO / "tests/support"), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def machines() -> Iterator[str]:
    """The address of a cluster of two machines, as Ray's own tests have them: a raylet each, on this one."""
    cluster = Machines(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.fixture
def root(prepared_four: Path, tmp_path: Path) -> Path:
    return copy_project(prepared_four, tmp_path / "project")


def on(address: str, params: Params, **engine: Any) -> Params:
    changes = {"name": "ray", "address": address, **engine}
    return with_changes(params, {f"engine.{name}": value for name, value in changes.items()})


def federated(root: Path, params: Params, base: tuple[str, str] = BASE, **engine: Any) -> Run:
    with engine_for(root, params, 4, **engine) as grid:
        return run_federation(grid, root, params, base)


def test_two_workers_make_the_model_of_one_process(alone: Run, root: Path, params: Params, machines: str) -> None:
    run = federated(root, on(machines, params, workers=2))

    assert run.run == alone.run and run.checkpoints == alone.checkpoints
    kept = [site / "round-0003" for site in sorted((root / "state" / run.run / "sites").iterdir())]
    assert len(kept) == 4 and all((version / "moments.safetensors").is_file() for version in kept)
    assert all((version.parent / "home" / version.name / "own.safetensors").is_file() for version in kept)
    events = read_lines(root / "results/federation/events.jsonl")
    assert [event["site"] for event in events if event["event"] == "local-training"] == [
        f"cubes-{n}" for n in range(4)
    ] * 3


def test_messages_are_made_when_it_is_nearly_their_turn(root: Path, params: Params, machines: str) -> None:
    """Ten thousand sites' are not all in the server's memory; each worker has two, and two calls may be under way."""
    made: list[int] = []

    def summaries(count: int, kept: list[int]) -> Iterator[Message]:
        for place in range(count):
            content = RecordDict()
            protocol.write(content, protocol.Header(run="test", round=0, partition=place % 4))
            kept.append(place)
            yield Message(content, place % 4 + 1, protocol.SUMMARY, group_id="0")

    with engine_for(root, on(machines, params, workers=2), 4) as grid:
        seen = []
        for reply in grid.send_and_receive(summaries(30, made)):
            seen.append(reply.metadata.src_node_id)
            assert len(made) <= len(seen) + 4
            if len(seen) == 3:
                inner = [one.metadata.src_node_id for one in grid.send_and_receive(summaries(6, []))]
                assert inner == [1, 2, 3, 4, 1, 2]
    assert seen == [place % 4 + 1 for place in range(30)]


def test_what_all_sites_are_sent_reaches_a_worker_once(root: Path, params: Params, machines: str) -> None:
    """Also where another call comes between, with a record of its own."""

    def asked(value: float, count: int) -> Iterator[Message]:
        sent = ArrayRecord([np.full(50_000, value)])
        for place in range(count):
            yield Message(RecordDict({SENT: sent}), place % 4 + 1, protocol.SUMMARY, group_id="0")

    found: dict[float, set[tuple[int, int]]] = {1.0: set(), 2.0: set()}
    with engine_for(root, on(machines, params, workers=2), 4, app=telling) as grid:

        def ask(value: float, count: int) -> Iterator[None]:
            for reply in grid.send_and_receive(asked(value, count)):
                told = reply.content.config_records[TOLD]
                assert told["values"] == [value, value]
                found[value].add((told["process"], told["record"]))
                yield

        for place, _ in enumerate(ask(1.0, 12)):
            if place == 3:
                assert len(list(ask(2.0, 6))) == 6
    assert [len(records) for records in found.values()] == [2, 2]  # of two workers


def test_a_worker_that_ends_is_replaced_and_nothing_counts_twice(
    alone: Run, root: Path, params: Params, machines: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It had trained, and kept its codec's error and moments; then its reply never came."""
    (mark := tmp_path / "mark").mkdir()

    run = federated(root, on(machines, params, workers=2), app=partial(dying, mark, 1))

    assert len(list(mark.iterdir())) == 1
    assert run.checkpoints == alone.checkpoints
    assert "is replaced: its worker was lost" in capsys.readouterr().out


@pytest.mark.release
def test_a_site_that_ends_every_worker_is_left_out(root: Path, params: Params, machines: str, tmp_path: Path) -> None:
    (mark := tmp_path / "mark").mkdir()
    chosen = on(machines, with_changes(params, {"federation.min_replies": 0.75, "federation.rounds": 2}), workers=1)

    run = federated(root, chosen, app=partial(dying, mark, 1, times=3))

    assert len(list(mark.iterdir())) == 3
    last = read_lines(root / "results/federation/rounds.jsonl")[2]
    assert list(last["left_out"]) == ["cubes-1"] and "its worker was lost" in last["left_out"]["cubes-1"]
    assert run.rounds == 2


@pytest.mark.release
def test_a_site_that_hangs_is_left_out(root: Path, params: Params, machines: str, tmp_path: Path) -> None:
    (mark := tmp_path / "mark").mkdir()
    changes = {"federation.min_replies": 1.0, "federation.rounds": 2, "federation.timeout_s": 20.0}

    with pytest.raises(FederationError, match=r"3 of 4 sites trained well.*cubes-1: .*no reply within 20 s"):
        federated(root, on(machines, with_changes(params, changes), workers=2), app=partial(dying, mark, 1, hangs=True))


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[tuple[str, list[Path]]]:
    """A cluster of two machines that do not have the project's disk, and the folder of each."""
    homes = [tmp_path / "first", tmp_path / "second"]
    first, second = ({"num_cpus": 1, "env_vars": {NODE: str(home)}} for home in homes)
    cluster = Machines(initialize_head=True, head_node_args={**first, "include_dashboard": False})
    try:
        cluster.add_node(**second)
        yield cluster.address, homes
    finally:
        cluster.shutdown()


def test_machines_without_the_disk_get_what_they_need_once_and_keep_nothing_of_a_run(
    prepared_four: Path, params: Params, apart: tuple[str, list[Path]], tmp_path: Path
) -> None:
    """A worker ends in round 2, so sites move; the policy is a folder of the project's, sent like the recordings."""
    (mark := tmp_path / "mark").mkdir()
    address, homes = apart
    start = load_start(tmp_path, "random:nano", "cpu")
    root, single = (copy_project(prepared_four, tmp_path / name) for name in ("project", "single"))
    for folder in (root, single):
        save_checkpoint(start, folder / "models/start")
    base = ("models/start", BASE[1])
    alone = federated(single, params, base)

    run = federated(root, on(address, params, workers=2), base, app=partial(dying, mark, 1))

    assert run.checkpoints == alone.checkpoints and len(list(mark.iterdir())) == 1
    for home in homes:
        digests = {path.name for path in (home / "store").iterdir() if path.is_dir()}
        assert digests == {digest_folder(root / "models/start"), digest_folder(Path(run.sites["cubes-0"].root))}
        left = {path.name for path in home.glob("projects/*/state/*/sites/*")}
        assert left <= {"0001"}  # of the worker that was ended; its next task there removes it
    assert not (root / ".cache/features").exists()
    kept = [site / "round-0003" for site in sorted((root / "state" / run.run / "sites").iterdir())]
    assert len(kept) == 4 and all((version / "moments.safetensors").is_file() for version in kept)
    assert all((version.parent / "home" / version.name / "own.safetensors").is_file() for version in kept)


def test_too_little_room_and_no_cluster_are_told_at_once(params: Params, machines: str) -> None:
    with (
        pytest.raises(
            EngineError, match="workers 3 with 1 CPU cores each do not fit: the cluster has 2 CPU cores and 0"
        ),
        cluster_for(on(machines, params, workers=3), 4),
    ):
        pass
    with (
        pytest.raises(EngineError, match=r"1 CPU cores and 0\.5 GPU each do not fit: .*, which holds 0"),
        cluster_for(on(machines, params, gpus=0.5), 4),
    ):
        pass
    with (
        pytest.raises(EngineError, match="there is no Ray cluster at engine"),
        cluster_for(on("127.0.0.1:9", params), 4),
    ):
        pass


@pytest.mark.parametrize("end", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.release)])
def test_a_run_that_is_stopped_or_killed_goes_on(
    alone: Run, root: Path, prepared_four: Path, params: Params, end: signal.Signals
) -> None:
    """By another engine: what is kept is the run's. One that was stopped leaves no process."""
    (root / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    write_json(root / "sources.lock.json", read_json(prepared_four / "sources.lock.json"))
    command = [sys.executable, "-m", "zk0", "federate", "--engine", "ray"]
    running = subprocess.Popen(
        command,
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A background job starts with SIGINT ignored, and so would this child of one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        events = root / "results/federation/events.jsonl"
        while running.poll() is None and not (events.exists() and '"round": 2' in events.read_text()):
            time.sleep(0.2)
        started = psutil.Process(running.pid).children(recursive=True)
        os.kill(running.pid, end)
        told, _ = running.communicate(timeout=120)
    finally:
        running.kill()

    assert len(started) > 4
    if end is signal.SIGINT:  # of a killed run two of Ray's helpers look for it for minutes
        _, alive = psutil.wait_procs(started, timeout=60)
        assert [process.name() for process in alive] == []
        assert "goes on from the last one" in told
        assert list(Path("/tmp").glob(f"zk0-ray-{running.pid}-*")) == []
    done = subprocess.run(
        [sys.executable, "-m", "zk0", "federate"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    run = read_json(root / "results/federation/run.json")
    # A round is saved while the next one begins, so one that is killed then may have to make it again.
    assert run["resumed_at_rounds"] in ([[1]] if end is signal.SIGINT else [[0], [1]])
    assert run["checkpoints"]["last"]["digest"] == alone.checkpoints.last.digest
