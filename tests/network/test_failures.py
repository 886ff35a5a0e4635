"""What becomes of a federation when sites lie, die, hang, are cut off or shut out: the table of docs/RELIABILITY.md.

One run of four sites meets all of it; each test looks at one thing that happened.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from federated_sites import BASE
from lying_federation import beside, strict
from network_federation import Cable, NetworkFederation, RunRows, network_federation, server_app_peak_bytes
from network_services import wait_until
from spoiling_app import LIES, SWOLLEN_BYTES

from zk0.federation import protocol
from zk0.federation.rounds import first_state, run_round
from zk0.federation.start import warm_start
from zk0.network.server.services import halt, runs_of
from zk0.params import load_params

# Two minutes on two quiet cores; on busy ones every message waits for a process that Flower starts.
pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]
LAST_LIES = max(number for _, number, _ in LIES)
SWOLLEN = 2  # the round in which an update swells
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
def peaks() -> dict[str, int]:
    """The most memory that the ServerApp had, in bytes: up to the round before the lie that swells, and after it."""
    return {}


@pytest.fixture(scope="module")
def rounds(network: NetworkFederation, peaks: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
    """The rows of a run: with ``lies``, ``without`` three sites, with them ``back``, and with one ``revoked``."""
    _, hung, killed, cut = network.sites
    assert cut.cable is not None
    number, since = network.begin(client_app="spoiling_app:app")
    rows = RunRows(network, number, since, first=-1)
    lies = rows.until(lambda last: last["round"] == SWOLLEN - 1)
    peaks["before"] = server_app_peak_bytes(network)
    lies += rows.until(lambda last: last["round"] == LAST_LIES)
    peaks["after"] = server_app_peak_bytes(network)
    rows.told("round-start", LAST_LIES + 1)
    killed.kill()
    hung.freeze()
    cut.cable.cut()
    without = rows.until(lambda last: last["round"] == LAST_LIES + 3)
    killed.start()
    hung.thaw()
    cut.cable.mend()
    back = rows.until(lambda last: not last["left_out"])
    network.server.registry.revoke("killed", "laptop stolen")
    revoked = rows.until(lambda last: bool(last["left_out"]))
    halt(network.server, number)
    wait_until(lambda: runs_of(network.server, number)[0].finished, "the run's end")
    return {"lies": lies, "without": without, "back": back, "revoked": revoked}


def reasons(rows: list[dict[str, Any]], site: str) -> set[str]:
    return {row["left_out"].get(site, "") for row in rows}


@pytest.fixture(scope="module")
def refusals(network: NetworkFederation, rounds: dict[str, list[dict[str, Any]]]) -> dict[tuple[int, str], list[str]]:
    """What was said while sites lied, by round and site."""
    told: dict[tuple[int, str], list[str]] = {}
    for event in strict(network.root / "results/federation/events.jsonl"):
        if found := re.fullmatch(r"\w+ (?:is left out|cannot take part): (.*)", event["message"]):
            told.setdefault((event["round"], event["site"]), []).append(found[1])
    return {key: reasons for key, reasons in told.items() if key[0] <= LAST_LIES}


def test_lies_are_left_out_and_the_round_goes_on(
    rounds: dict[str, list[dict[str, Any]]], refusals: dict[tuple[int, str], list[str]]
) -> None:
    """Each site is left out for its own lies, with the reason; and nobody else."""
    expected: dict[tuple[int, str], list[str]] = {}
    for (_, number, partition), (_, pattern) in LIES.items():
        expected.setdefault((number, NAMES[partition]), []).append(pattern)

    assert refusals.keys() == expected.keys()
    for key, patterns in expected.items():
        for reason, pattern in zip(refusals[key], patterns, strict=True):
            assert re.search(pattern, reason), (key, reason)
            assert len(reason) <= 300 and reason.isprintable()
    assert [row["round"] for row in rounds["lies"]] == list(range(LAST_LIES + 1))
    assert all(row["sites"]["steady"]["examples"] == 2 for row in rounds["lies"][1:])


def test_an_update_that_swells_does_not_swell_the_server(
    rounds: dict[str, list[dict[str, Any]]], peaks: dict[str, int]
) -> None:
    """A quarter of a megabyte travelled that was to become 1.5 GB."""
    assert peaks["before"] < SWOLLEN_BYTES
    assert peaks["after"] < 1.5 * peaks["before"]


def test_what_liars_say_leaves_files_and_logs_as_they_are(
    network: NetworkFederation, rounds: dict[str, list[dict[str, Any]]]
) -> None:
    results = network.root / "results/federation"
    for file in (results / "rounds.jsonl", *network.root.glob("state/*/round-*/state.json")):
        assert strict(file)
    files = [results / "events.jsonl", *(network.root / ".run").glob("*.log")]
    shown = "".join(file.read_text() for file in files)
    assert "\x1b[2K" not in shown and "\\u001b" not in shown and "x" * 500 not in shown


def test_liars_change_the_model_as_little_as_sites_that_are_away(
    network: NetworkFederation, rounds: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    params = load_params(network.root / "params.yaml")
    silent = {key for key in LIES if key[0] != protocol.SUMMARY}  # who lies at the roll call is asked again
    server = beside(params, {site.partition: site.folder for site in network.sites}, silent, tmp_path)

    server.begin_round()
    state = first_state(server, warm_start(tmp_path, params, BASE[0]).first)
    for _ in range(LAST_LIES):
        state = run_round(server, state, state.moments().normalisation())

    assert [row["digest"] for row in rounds["lies"]] == [row.digest for row in state.rounds]


@pytest.mark.parametrize("site", ["killed", "hung", "cut"])
def test_a_site_that_is_gone_is_left_out_and_the_round_goes_on(
    rounds: dict[str, list[dict[str, Any]]], site: str
) -> None:
    assert [row["round"] for row in rounds["without"]] == [LAST_LIES + 1, LAST_LIES + 2, LAST_LIES + 3]
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
