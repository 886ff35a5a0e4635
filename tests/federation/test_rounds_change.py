"""Rounds that are not all alike: sites are drawn, rates change, the run ends early. Over real messages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federated_sites import BASE, LIMIT, MakeServer, app_of, averaged, copy_project, crash, spoilt, train_round, values
from flwr.app import Context, Message

from zk0.errors import StageError
from zk0.federation import protocol
from zk0.federation.client_app import app as client_app
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.plan import draw_sites, judges
from zk0.federation.rounds import run_round
from zk0.federation.run import run_federation
from zk0.federation.server import FederationError
from zk0.federation.site import forget
from zk0.federation.state import RoundState
from zk0.params import Params
from zk0.policy.checkpoint import Stats
from zk0.policy.trainable import Tensors, digest_tensors
from zk0.records.files import read_lines
from zk0.records.journal import print_event
from zk0.records.run import Round

NAMES = ("cubes-0", "cubes-1")


def listening(tasks: list[protocol.SiteTask]) -> Any:
    """The real ClientApp; what it is asked to train is noted."""

    def answer(message: Message, context: Context) -> Message:
        if message.metadata.message_type == protocol.TRAIN:
            tasks.append(protocol.read(message.content, protocol.SiteTask)[0])
        return client_app(message, context)

    return app_of(answer)


def with_federation(params: Params, **federation: Any) -> Params:
    return params.model_copy(update={"federation": params.federation.model_copy(update=federation)})


# -- a fraction of the sites --------------------------------------------------------------------


def test_only_the_drawn_train_and_all_evaluate(
    make_server: MakeServer, state: RoundState, stats: Stats, updates: dict[str, tuple[Tensors, float]]
) -> None:
    tasks: list[protocol.SiteTask] = []
    server = make_server(listening(tasks), fraction=0.5, min_replies=1.0)
    (drawn,) = draw_sites(server.params.seed, 1, 2, 0.5)

    after = run_round(server, state, stats)

    assert [task.partition for task in tasks] == [drawn]
    row, update = after.rounds[-1], updates[NAMES[drawn]]
    assert after.digest == digest_tensors({name: state.tensors[name] + step for name, step in update[0].items()})
    trained, other = row.sites[NAMES[drawn]], row.sites[NAMES[1 - drawn]]
    assert trained.examples == 2 and trained.bytes_up == row.bytes_up > 0
    assert other.examples is None and other.bytes_up == 0 and other.held_out_loss > 0
    assert row.bytes_down == trained.bytes_down + other.bytes_down
    assert row.left_out == {} and after.used == {drawn: 1}
    (begun,) = [e for e in read_lines(server.journal._path) if e["event"] == "round-start"]
    assert begun["message"] == "round 1 of 2, 1 of 2 sites train"


def test_only_the_judges_judge(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    """The round is told of those who were asked for anything; what nobody asks of the others costs nothing."""
    server = make_server(fraction=0.5, judges=0.5, min_replies=1.0)
    (judge,) = judges(server.params, [0, 1])
    shared = next(number for number in range(1, 20) if draw_sites(1, number, 2, 0.5) == (judge,))
    before = replace(state, round=shared - 1, rounds=(Round(round=shared - 1, held_out_loss=1.0),))

    after = run_round(server, before, stats)

    row = after.rounds[-1]
    assert list(row.sites) == [NAMES[judge]] and row.sites[NAMES[judge]].examples == 2
    assert row.held_out_loss == row.sites[NAMES[judge]].held_out_loss
    absent = make_server(spoilt(protocol.EVALUATE, crash, partition=1 - judge), judges=0.5, min_replies=1.0)
    assert run_round(absent, state, stats).rounds[-1].left_out == {}
    with pytest.raises(FederationError, match="round 1: 0 of 1 sites evaluated well"):
        failing = spoilt(protocol.EVALUATE, crash, partition=judge)
        run_round(make_server(failing, judges=0.5, min_replies=0.5), state, stats)


def test_needed_replies_are_counted_among_the_drawn(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    (drawn,) = draw_sites(1, 1, 2, 0.5)
    failing = spoilt(protocol.TRAIN, crash, partition=drawn)

    with pytest.raises(FederationError, match=f"round 1: 0 of 1 sites trained well.*{NAMES[drawn]}: the site failed"):
        run_round(make_server(failing, fraction=0.5, min_replies=0.5), state, stats)
    other = spoilt(protocol.TRAIN, crash, partition=1 - drawn)
    assert run_round(make_server(other, fraction=0.5, min_replies=1.0), state, stats).used == {drawn: 1}


# -- schedules ----------------------------------------------------------------------------------


def test_server_steps_at_the_rounds_rate(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    settings = {"server_learning_rate": 0.5, "server_schedule": "cosine", "server_least_share": 0.5, "rounds": 2}
    second = RoundState(1, state.tensors, (*state.rounds, Round(round=1, held_out_loss=1.0)), {})
    mean, _, _ = train_round(make_server(**settings), second, stats)
    expected = {name: state.tensors[name] + step.mul_(0.25) for name, step in mean.items()}

    after = run_round(make_server(**settings), second, stats)

    assert after.rounds[-1].server_learning_rate == 0.25 and after.rounds[-1].proximal_mu == 0.0
    assert after.digest == digest_tensors(expected)


def test_sites_train_with_the_rounds_proximal_weight(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    tasks: list[protocol.SiteTask] = []
    settings: dict[str, Any] = {"strategy": "fedprox", "proximal_mu": 50.0, "proximal_schedule": "linear", "rounds": 2}
    server = make_server(listening(tasks), **settings)

    two = run_round(server, run_round(server, state, stats), stats)

    assert [task.proximal_mu for task in tasks] == [50.0, 50.0, 5.0, 5.0]
    assert [row.proximal_mu for row in two.rounds[1:]] == [50.0, 5.0]
    events = [event for event in read_lines(server.journal._path) if event["event"] == "round-start"]
    assert [event["proximal_mu"] for event in events] == [50.0, 5.0]
    assert events[1]["message"] == "round 2 of 2, proximal mu 5"


def test_proximal_weight_changes_what_is_learned(
    make_server: MakeServer, state: RoundState, stats: Stats, updates: dict[str, tuple[Tensors, float]]
) -> None:
    longer = {"local_steps": 2}
    digests = []
    for mu in (0.0, 100.0):
        server = make_server(strategy="fedprox", proximal_mu=mu)
        training = server.params.training.model_copy(update=longer)
        server.params = server.params.model_copy(update={"training": training})
        digests.append(digest_tensors(train_round(server, state, stats)[0]))

    assert digests[0] != digests[1]
    one_step = digest_tensors(train_round(make_server(strategy="fedprox", proximal_mu=100.0), state, stats)[0])
    assert one_step == averaged(state.tensors, *updates.values())  # the first step starts at the global model


# -- whole runs ---------------------------------------------------------------------------------

CHANGING: dict[str, Any] = {
    "strategy": "fedprox",
    "proximal_mu": 1.0,
    "proximal_schedule": "trend",
    "server_schedule": "plateau",
    "schedule_patience": 1,
    "fraction": 0.5,
    "uplink": "int8",
    "rounds": 4,
    "min_replies": 1.0,
}


def test_interrupted_run_draws_and_schedules_as_if_it_had_not_been(
    project: Path, quick: Params, tmp_path: Path
) -> None:
    params = with_federation(quick, **CHANGING)
    whole = run_federation(InProcessGrid(client_app, project, 2, LIMIT), project, params, BASE)
    other = copy_project(project, tmp_path / "other")

    def dies_in_round_3(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if message.metadata.message_type == protocol.TRAIN and protocol.read(reply.content)[0].round == 3:
            raise OSError("the disk is full")
        return reply

    with pytest.raises(FederationError, match="round 3: 0 of 1 sites trained well"):
        run_federation(InProcessGrid(app_of(dies_in_round_3), other, 2, LIMIT), other, params, BASE)
    forget()  # as another process would
    resumed = run_federation(InProcessGrid(client_app, other, 2, LIMIT), other, params, BASE)

    assert resumed.resumed_at_rounds == (2,) and resumed.checkpoints == whole.checkpoints
    ran = [read_lines(root / "results" / "federation" / "rounds.jsonl")[1:] for root in (project, other)]
    for key in ("server_learning_rate", "proximal_mu", "digest", "held_out_loss"):
        assert [row[key] for row in ran[0]] == [row[key] for row in ran[1]]
    trained = [[name for name, site in row["sites"].items() if "examples" in site] for row in ran[1]]
    assert trained == [[NAMES[draw_sites(1, number, 2, 0.5)[0]]] for number in range(1, 5)]
    assert len({name for names in trained for name in names}) == 2
    assert whole.stopped is None


def test_run_that_no_longer_gets_better_ends_and_stays_ended(
    project: Path, quick: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    """No round is 90% better than the one before, so the third has brought nothing for two rounds."""
    params = with_federation(quick, rounds=6, stop_after=2, stop_margin=0.9)
    results = project / "results" / "federation"

    report = run_federation(InProcessGrid(client_app, project, 2, LIMIT), project, params, BASE, print_event)

    assert report.rounds == 3
    assert report.stopped.startswith("no round since round 1 was better by 0.9 of it than its held-out loss of ")
    told = [event for event in read_lines(results / "events.jsonl") if event["event"] in ("stop", "done")]
    assert [event["event"] for event in told] == ["stop", "done"]
    assert told[0]["message"] == f"stopped after round 3: {report.stopped}" and told[0]["round"] == 3
    assert "stopped after round 3: no round since round 1" in " ".join(capsys.readouterr().out.split())
    forget()
    nobody_trains = spoilt(protocol.TRAIN, crash, partition=0)
    again = run_federation(InProcessGrid(nobody_trains, project, 2, LIMIT), project, params, BASE)
    assert again.checkpoints == report.checkpoints and again.stopped == report.stopped
    assert [row["round"] for row in read_lines(results / "rounds.jsonl")] == [0, 1, 2, 3]


def test_too_few_drawn_are_told_before_they_train(project: Path, quick: Params) -> None:
    params = with_federation(quick, strategy="trimmed-mean", trimmed_share=0.45, fraction=0.5)

    with pytest.raises(StageError, match=r"needs 3 sites, since .*federation\.fraction 0\.5 draws 1 a round"):
        run_federation(
            InProcessGrid(spoilt(protocol.TRAIN, values(examples=None)), project, 2, LIMIT), project, params, BASE
        )
