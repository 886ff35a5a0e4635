"""Whole runs under privacy: real sites, real messages, and nothing told that is not paid for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from federated_sites import BASE, LIMIT, MakeServer, app_of, copy_project, crash, delta, spoilt
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from scipy import stats as chances

from zk0.federation import protocol, wire
from zk0.federation.client_app import app as client_app
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.privacy.accountant import planned_epsilon
from zk0.federation.privacy.central import CentralPrivacy
from zk0.federation.privacy.mechanism import exact_norm
from zk0.federation.rounds import run_round
from zk0.federation.run import run_federation
from zk0.federation.server import FederationError, Server
from zk0.federation.site import forget
from zk0.federation.state import RoundState, StateFolder
from zk0.files import read_json, write_json
from zk0.params import Params, with_changes
from zk0.policy.checkpoint import Stats
from zk0.records.files import read_lines
from zk0.records.run import Run

RARE = 1e-8
RESULTS = Path("results/federation")


@pytest.fixture(scope="module")
def private(quick: Params) -> Params:
    """Three rounds with little noise and a budget for all of them."""
    changes = {
        "federation.weighting": "equal",
        "federation.min_replies": 1.0,
        "federation.rounds": 3,
        "privacy.mode": "central",
        "privacy.clip_norm": 0.05,
        "privacy.noise_multiplier": 0.5,
        "privacy.target_epsilon": 1e4,
    }
    return with_changes(quick, changes)


def run(root: Path, params: Params, app: ClientApp = client_app) -> Run:
    return run_federation(InProcessGrid(app, root, 2, LIMIT), root, params, BASE)


def ledger(root: Path, report: Run) -> list[tuple[int, str]]:
    charges = read_json(root / "state" / report.run / "privacy.json")["charges"]
    return [(charge["round"], charge["what"]) for charge in charges]


def never_asked_for_statistics() -> ClientApp:
    def answer(message: Message, context: Context) -> Message:
        if message.metadata.message_type == protocol.STATISTICS:
            raise AssertionError("a site was asked for its statistics")
        return client_app(message, context)

    return app_of(answer)


EVERY_RELEASE = [(0, "evaluation")] + [(n, what) for n in (1, 2, 3) for what in ("training", "evaluation")]


def test_central_run_charges_every_release_and_tells_of_no_site(project: Path, private: Params) -> None:
    report = run(project, private, never_asked_for_statistics())

    assert ledger(project, report) == EVERY_RELEASE
    rows = read_lines(project / RESULTS / "rounds.jsonl")
    spent = [row["epsilon"] for row in rows]
    assert spent == pytest.approx([planned_epsilon(private.privacy, n) for n in range(4)])
    assert spent == sorted(spent) and report.privacy.content() == {
        "mode": "central",
        "unit": "site",
        "epsilon": spent[-1],
        "delta": 1e-5,
    }
    for row in rows:
        assert row["delta"] == 1e-5 and row["left_out"] == {}
        for record in row["sites"].values():
            assert record.keys() <= {"examples", "bytes_up", "bytes_down"}
    assert [row["clip_norm"] for row in rows[1:]] == [0.05] * 3
    assert rows[1]["noise_deviation"] == pytest.approx(0.5 * 0.05 / 2)
    trained = [e for e in read_lines(project / RESULTS / "events.jsonl") if e["event"] == "train"]
    assert len(trained) == 6 and all(e["message"] == f"{e['site']} trained" for e in trained)
    kept = project / "state" / report.run
    assert len(read_json(kept / "round-0003" / "state.json")["privacy"]["charges"]) == 7
    assert read_lines(kept / "rounds.jsonl")[1]["sites"] == rows[1]["sites"]
    assert report.stats["action"]["mean"] == pytest.approx([0, 0, 0, 0, 0, 50])


def test_noise_is_new_in_every_run(project: Path, private: Params, tmp_path: Path) -> None:
    one = with_changes(private, {"federation.rounds": 1})
    other = copy_project(project, tmp_path / "other")

    first, second = run(project, one), run(other, one)

    assert first.run == second.run
    assert first.checkpoints.last.digest != second.checkpoints.last.digest


def test_noise_of_the_model_is_as_large_as_its_row_says(
    make_server: MakeServer, state: RoundState, stats: Stats, private: Params, tmp_path: Path
) -> None:
    """The clip is so small that what moves the model is noise."""
    server = central_server(make_server, with_changes(private, {"privacy.clip_norm": 1e-3}), tmp_path)

    after = run_round(server, state, stats)

    deviation = after.rounds[-1].noise_deviation
    moved = torch.cat([(after.tensors[n] - t).reshape(-1).double() for n, t in state.tensors.items()])
    low, high = chances.chi2.ppf([RARE, 1 - RARE], len(moved))
    assert low * 0.98 < float((moved**2).sum()) / deviation**2 < high * 1.02  # and the rounding of the model's float32
    assert len(moved) > 100_000


def test_no_site_moves_the_model_by_more_than_its_share(
    make_server: MakeServer, state: RoundState, stats: Stats, private: Params, tmp_path: Path
) -> None:
    still = with_changes(private, {"privacy.noise_multiplier": 1e-9, "privacy.target_epsilon": 1e30})
    boasting = spoilt(protocol.TRAIN, delta(lambda tensors, name: tensors[name].add_(1e6)))
    server = central_server(make_server, still, tmp_path, boasting)

    after = run_round(server, state, stats)

    moved = {name: after.tensors[name].double() - tensor.double() for name, tensor in state.tensors.items()}
    assert 0.02 < exact_norm(moved) <= 2 * 0.05 / 2 * (1 + 1e-3)


def test_central_privacy_without_a_ledger_is_refused(
    make_server: MakeServer, state: RoundState, stats: Stats, private: Params
) -> None:
    server = make_server()
    server.params = private

    with pytest.raises(FederationError, match="the server has no ledger to charge"):
        run_round(server, state, stats)
    with pytest.raises(FederationError, match="needs a normalisation that no site is asked for"):
        server.merged_moments()


def test_budget_ends_the_run_before_the_round_that_would_exceed_it(project: Path, private: Params) -> None:
    enough_for_2 = (planned_epsilon(private.privacy, 2) + planned_epsilon(private.privacy, 3)) / 2
    small = with_changes(private, {"privacy.target_epsilon": enough_for_2})

    report = run(project, small)

    assert report.rounds == 2 and report.privacy.epsilon <= enough_for_2
    assert report.stopped.startswith("round 3 would exceed privacy.target_epsilon")
    assert read_lines(project / RESULTS / "events.jsonl")[-2]["event"] == "stop"
    assert ledger(project, report) == EVERY_RELEASE[:5]
    again = run(project, small)
    assert again.checkpoints == report.checkpoints and ledger(project, again) == EVERY_RELEASE[:5]

    more = run(project, private)  # a larger budget goes on, with what was spent

    assert more.run == report.run and more.rounds == 3 and more.stopped is None
    assert ledger(project, more) == EVERY_RELEASE
    assert more.privacy.epsilon == pytest.approx(planned_epsilon(private.privacy, 3))


def test_round_that_was_cut_off_stays_charged(project: Path, private: Params) -> None:
    seen: list[int] = []

    def dies_in_round_2(content: RecordDict) -> None:
        seen.append(1)
        if len(seen) == 3:  # rounds 0 and 1 were evaluated
            crash(content)

    with pytest.raises(FederationError, match="round 2: 1 of 2 sites evaluated well"):
        run(project, private, spoilt(protocol.EVALUATE, dies_in_round_2))
    forget()
    report = run(project, private)

    assert ledger(project, report) == [*EVERY_RELEASE[:3], (2, "training"), *EVERY_RELEASE[3:]]
    assert report.privacy.epsilon > planned_epsilon(private.privacy, 3)
    rows = read_lines(project / RESULTS / "rounds.jsonl")
    assert rows[1]["epsilon"] == pytest.approx(planned_epsilon(private.privacy, 1))
    assert rows[3]["epsilon"] == report.privacy.epsilon


def test_lost_ledger_does_not_make_spending_undone(project: Path, private: Params) -> None:
    report = run(project, with_changes(private, {"federation.rounds": 3}))
    file = project / "state" / report.run / "privacy.json"
    file.unlink()

    again = run(project, private)

    assert again.privacy.epsilon == report.privacy.epsilon
    states = StateFolder(file.parent)
    last = states.load_last()
    assert last is not None and len(last.privacy["charges"]) == 7


def test_adaptive_clip_goes_on_where_it_was(project: Path, private: Params) -> None:
    adaptive = with_changes(private, {"privacy.clip": "adaptive", "privacy.report_noise_multiplier": 1.0})
    report = run(project, adaptive)

    rows = read_lines(project / RESULTS / "rounds.jsonl")
    clips = [row["clip_norm"] for row in rows[1:]]
    assert clips[0] == 0.05 and len(set(clips)) == 3
    state = read_json(project / "state" / report.run / "round-0003" / "state.json")
    assert state["privacy"]["clip_norm"] not in clips


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"privacy.target_epsilon": 0.01}, "0.01 does not afford a single round: it would cost"),
        ({"privacy.delta": 0.5}, "privacy.delta 0.5 allows that one of 2 sites is told of outright"),
    ],
)
def test_promise_that_cannot_be_kept_is_refused_before_anyone_trains(
    project: Path, private: Params, changes: dict[str, Any], rule: str
) -> None:
    with pytest.raises(FederationError, match=rule):
        run(project, with_changes(private, changes), spoilt(protocol.EVALUATE, crash))


def test_why_a_site_was_left_out_is_not_told(
    make_server: MakeServer, state: RoundState, stats: Stats, private: Params, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    params = with_changes(private, {"federation.min_replies": 0.5})
    nan = spoilt(protocol.TRAIN, delta(lambda tensors, name: tensors[name].fill_(float("nan"))))

    row = run_round(central_server(make_server, params, tmp_path, nan), state, stats).rounds[-1]

    assert row.left_out == {"cubes-1": "see the server's own log"}
    assert "cubes-1 is left out: its update is refused" in caplog.text


def test_site_mode_sends_noise_and_keeps_count(project: Path, private: Params) -> None:
    changes = {"privacy.mode": "site", "privacy.clip_norm": 1e-3, "federation.uplink": "bf16", "federation.rounds": 2}
    params = with_changes(private, changes)
    sent: list[torch.Tensor] = []

    def answer(message: Message, context: Context) -> Message:
        assert message.metadata.message_type != protocol.STATISTICS
        reply = client_app(message, context)
        if protocol.DELTA in reply.content:
            update = wire.unpack(reply.content, protocol.DELTA, "bf16")
            sent.append(torch.cat([tensor.reshape(-1).double() for tensor in update.values()]))
            assert "frames" not in protocol.read(reply.content)[1]
        elif message.metadata.message_type == protocol.EVALUATE:
            assert protocol.read(reply.content)[1]["frames"] == 1
        return reply

    report = run(project, params, app_of(answer))

    deviation = 0.5 * 1e-3  # each site's own, and larger than all that its data may add
    low, high = chances.chi2.ppf([RARE, 1 - RARE], len(sent[0]))
    assert len(sent) == 4
    for update in sent:
        assert low * 0.98 < float((update**2).sum()) / deviation**2 < high * 1.02  # and the rounding of bf16
    rows = read_lines(project / RESULTS / "rounds.jsonl")
    assert rows[-1]["epsilon"] > rows[1]["epsilon"] > 0
    for partition in (0, 1):
        charges = read_json(project / "state" / "privacy" / f"site-{partition:04d}.json")["charges"]
        assert [(c["round"], c["what"]) for c in charges] == EVERY_RELEASE[:5]
    assert report.privacy.mode == "site" and report.privacy.epsilon == rows[-1]["epsilon"]


def test_site_mode_ends_when_the_sites_budget_would(project: Path, private: Params) -> None:
    changes = {"privacy.mode": "site", "privacy.target_epsilon": planned_epsilon(private.privacy, 1) + 1e-6}

    report = run(project, with_changes(private, changes))

    assert report.rounds == 1 and "affords 1 rounds" in report.stopped


def test_site_that_spent_its_budget_elsewhere_sends_nothing(project: Path, private: Params) -> None:
    params = with_changes(private, {"privacy.mode": "site", "privacy.target_epsilon": 60.0})
    spent = {"round": 1, "what": "training", "noise_multiplier": 0.1, "sampling": 1.0}
    write_json(project / "state" / "privacy" / "site-0001.json", {"charges": [spent]})

    with pytest.raises(FederationError, match=r"cubes-1 says: .BudgetSpent: the evaluation of round 0"):
        run(project, params)


class Demanding(InProcessGrid):
    """The second site's owner demands privacy, whatever the server says."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._contexts[2].node_config["privacy-noise-multiplier"] = 4.0


def test_owners_demand_meets_a_server_that_asks_for_none(project: Path, quick: Params) -> None:
    params = with_changes(quick, {"federation.min_replies": 1.0})

    with pytest.raises(FederationError, match=r"cubes-1 says: .PermissionError: this site's owner demands"):
        run_federation(Demanding(client_app, project, 2, LIMIT), project, params, BASE)


def test_owners_demand_is_charged_by_its_own_noise(project: Path, private: Params) -> None:
    params = with_changes(private, {"privacy.mode": "site", "federation.rounds": 1})

    run_federation(Demanding(client_app, project, 2, LIMIT), project, params, BASE)

    noise = [
        read_json(project / "state" / "privacy" / f"site-{partition:04d}.json")["charges"][1]["noise_multiplier"]
        for partition in (0, 1)
    ]
    assert noise[0] < 0.5 < 3.5 < noise[1] < 4.0


def test_off_tells_and_asks_what_it_did_before(project: Path, quick: Params) -> None:
    report = run(project, quick)

    assert "privacy" not in report
    assert not (project / "state" / report.run / "privacy.json").exists()
    assert not (project / "state" / "privacy").exists()
    rows = read_lines(project / RESULTS / "rounds.jsonl")
    assert all("epsilon" not in row and "clip_norm" not in row for row in rows)
    assert json.dumps(report.stats).count("mean") == 2 and report.stats["action"]["mean"][5] != 50


def central_server(make_server: MakeServer, params: Params, folder: Path, app: ClientApp = client_app) -> Server:
    server = make_server(app)
    server.params = params
    server.privacy = CentralPrivacy.open(params.privacy, folder, 2, 2)
    return server
