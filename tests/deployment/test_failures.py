"""What becomes of a federation when sites lie, die, hang, are cut off or shut out: the table of docs/RELIABILITY.md.

One run of four sites meets all of it; each test looks at one thing that happened.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from network_federation import Cable, NetworkFederation, RunRows, network_federation
from network_services import wait_until

from zk0.deployment.serving.runs import halt, runs_of

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
    rows = RunRows(network, number, since)
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
