"""Which sites a run has, when some are away, new or shut out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from federated_sites import BASE, LIMIT, app_of, values
from flwr.app import Context, Message

from zk0.errors import StageError
from zk0.federation.client_app import app as client_app
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.server import FederationError, Server
from zk0.files import read_json, write_json
from zk0.network.security.keys import NodeKey
from zk0.network.security.sites import Site, SiteRegistry
from zk0.network.server.control import members_of
from zk0.network.server.roll_call import NOBODY, RollCall
from zk0.params import Params
from zk0.records.files import read_lines
from zk0.records.journal import Journal


@dataclass
class World:
    """Two sites, kitchen and lab, some of them there."""

    root: Path
    params: Params
    prepared: Path
    registry: SiteRegistry
    there: set[int] = field(default_factory=lambda: {1, 2})
    app: Any = client_app

    def present(self) -> set[int]:
        return self.there

    def call(self, least: int = 0, members: list[Site] | None = None) -> Server:
        """A server that has called the roll."""
        grid = InProcessGrid(self.app, self.prepared, 2, LIMIT)
        server = Server(grid, self.params, "", BASE, Journal(self.root / "events.jsonl"), self.root / "waiting")
        everybody = members_of(self.registry.sites(), []) if members is None else members
        RollCall(self.root, self.params, BASE[1], everybody, self, 0.0, least)(server)
        return server

    def said(self, event: str) -> list[str]:
        return [one["message"] for one in read_lines(self.root / "events.jsonl") if one["event"] == event]


@pytest.fixture
def world(tmp_path: Path, small_params: Params, prepared: Path) -> World:
    registry = SiteRegistry.create(tmp_path / "sites.json", "arms")
    for node, name in enumerate(("kitchen", "lab"), 1):
        registry.admit(name, NodeKey.create(tmp_path / name).public)
        registry.registered(name, node)
    return World(tmp_path, small_params, prepared, registry)


def test_sites_are_who_the_registry_says_they_are(world: World) -> None:
    """Their own manifests call them cubes-0 and cubes-1."""
    server = world.call()

    assert server.sites == {0: "kitchen", 1: "lab"} and server.nodes == {0: 1, 1: 2}
    assert world.said("roll-call") == ["kitchen is there", "lab is there"]


def test_a_new_run_does_not_begin_without_a_site_unless_it_is_asked_to(world: World) -> None:
    world.there = {1}

    with pytest.raises(FederationError, match=r"1 of 2 sites are there after 0 s, and a new run needs 2: lab is away"):
        world.call()
    server = world.call(least=1)

    assert server.sites == {0: "kitchen"}
    assert world.said("site-away") == ["lab is away: the run begins without it"]


def test_nobody_is_never_enough(world: World) -> None:
    world.there = set()

    with pytest.raises(FederationError, match="0 of 2 sites are there"):
        world.call(least=1)


def test_a_site_that_is_away_is_remembered_when_the_run_goes_on(world: World) -> None:
    world.call()
    world.there = {2}

    server = world.call()

    assert server.sites == {0: "kitchen", 1: "lab"} and server.nodes == {0: 1, 1: 2}
    assert world.said("site-away") == ["kitchen is away"]


def test_a_site_that_was_revoked_keeps_its_place_and_is_asked_no_more(world: World) -> None:
    """Two of them are told apart by what stands for their nodes."""
    world.call()
    world.registry.revoke("kitchen", "laptop stolen")

    server = world.call()

    assert server.sites == {0: "kitchen", 1: "lab"} and server.nodes == {0: NOBODY, 1: 2}

    assert world.call(members=[]).nodes == {0: NOBODY, 1: NOBODY - 1}


def test_a_site_admitted_since_waits_for_the_next_run(world: World) -> None:
    (lab,) = members_of(world.registry.sites(), ["lab"])
    world.call(members=[lab])

    server = world.call()

    assert server.sites == {1: "lab"}
    assert world.said("site-waits") == ["kitchen was not in this run when it began, and takes part in the next"]


def test_a_complete_run_is_followed_by_one_with_the_newcomer(world: World) -> None:
    (lab,) = members_of(world.registry.sites(), ["lab"])
    world.call(members=[lab])
    run = read_json(world.root / "state/network.json")["run"]
    when, kept = "2026-01-01T10:00:00+00:00", {"path": "checkpoints/best", "digest": "d"}
    done = {"run": run, "started": when, "ended": when, "params": {}, "base": {"source": "b"}, "sites": {}, "rounds": 1}
    more = {"best_round": 1, "git": {}, "checkpoints": {"best": kept, "last": kept}}
    write_json(world.root / "results/federation/run.json", done | more)

    assert world.call(members=[lab]).sites == {1: "lab"}
    assert world.call().sites == {0: "kitchen", 1: "lab"}


def test_other_params_begin_another_run(world: World) -> None:
    world.call()
    world.params = world.params.model_copy(update={"seed": 99})
    world.there = {2}

    with pytest.raises(FederationError, match="a new run needs 2"):
        world.call()


def _answering(spoil: Callable[[Any], Any]) -> Any:
    def answer(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if context.node_config["partition-id"] == 0:
            spoil(reply.content)
        return reply

    return app_of(answer)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (values(manifest={"fps": "many"}), "its manifest's source is missing"),
        (values(manifest=None), "the reply's manifest is missing"),
        (lambda content: content.clear(), "the message has no header"),
    ],
)
def test_a_malformed_summary_is_told(world: World, spoil: Callable[[Any], Any], why: str) -> None:
    world.app = _answering(spoil)

    with pytest.raises(FederationError, match=f"kitchen cannot take part: {why}"):
        world.call()
    assert world.call(least=1).sites == {1: "lab"}


def test_frames_count_as_a_site_first_said(world: World) -> None:
    """Its digest, which names the run, it keeps."""
    first = world.call().manifests[0]
    world.app = _answering(values(manifest={**first.content(), "held_out_frames": 10**6, "site": "cubes-0"}))

    assert world.call().manifests[0] == first


def test_members_are_named(world: World) -> None:
    sites = world.registry.sites()

    assert [site.name for site in members_of(sites, ["lab"])] == ["lab"]
    with pytest.raises(StageError, match="no admitted site is called cellar"):
        members_of(sites, ["cellar"])
    with pytest.raises(StageError, match="no site is admitted"):
        members_of([], [])
