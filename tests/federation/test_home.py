"""Tensors that sites keep to themselves: trained at home, no part of any update, taken up again with the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from federated_sites import BASE, LIMIT

from zk0.errors import StageError
from zk0.federation import protocol
from zk0.federation.broadcast import Model
from zk0.federation.client_app import app as client_app
from zk0.federation.discovery import meet
from zk0.federation.home import Home, local_names
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.run import run_federation
from zk0.federation.server import Server
from zk0.federation.site import open_site, warm_policy
from zk0.federation.state import SiteMemory
from zk0.params import Params, ParamsError, parse_params
from zk0.policy.checkpoint import Stats, load_checkpoint
from zk0.policy.trainable import Tensors, digest_tensors, trainable_tensors
from zk0.records.files import read_lines
from zk0.records.journal import Journal

NORMS = ("*layernorm*", "*lm_expert.norm*")


@pytest.fixture(scope="module")
def at_home(quick: Params) -> Params:
    """Two rounds in which the norms stay where they are trained."""
    federation = quick.federation.model_copy(update={"local": NORMS, "rounds": 2})
    training = quick.training.model_copy(update={"learning_rate": 0.01, "warmup_steps": 0})
    return quick.model_copy(update={"federation": federation, "training": training})


def home_of(project: Path, run: str, partition: int) -> Home:
    return Home.of(SiteMemory.of(project, run, partition), NORMS)


def test_each_site_has_its_own_and_the_global_model_the_starts(project: Path, at_home: Params, start: Tensors) -> None:
    run = run_federation(InProcessGrid(client_app, project, 2, LIMIT), project, at_home, BASE)

    own = local_names(start, NORMS)
    assert len(own) == 9 and not any("proj" in name for name in own)
    shared = trainable_tensors(load_checkpoint(project / "checkpoints" / "last").policy)
    one, two = (home_of(project, run.run, partition).into(dict(shared), 2) for partition in (0, 1))
    for name in shared:
        if name in own:
            assert torch.equal(shared[name], start[name])
            assert not torch.equal(one[name], start[name]) and not torch.equal(one[name], two[name])
        else:
            assert torch.equal(one[name], shared[name]) and not torch.equal(shared[name], start[name])


def test_nothing_of_them_is_in_an_update(
    project: Path, at_home: Params, start: Tensors, stats: Stats, tmp_path: Path
) -> None:
    from zk0.federation import wire

    grid = InProcessGrid(client_app, project, 2, LIMIT)
    server = Server(grid, at_home, "test", BASE, Journal(tmp_path / "events.jsonl"), tmp_path / "waiting")
    meet(server)
    replies = list(server.ask(protocol.TRAIN, 1, Model.of(dict(start)), stats))

    updates = [wire.unpack(reply.content, protocol.DELTA) for reply in replies]
    assert len(updates) == 2
    own = local_names(start, NORMS)
    for update in updates:
        assert {name for name, tensor in update.items() if not tensor.any()} == set(own)


def test_a_model_is_judged_with_what_the_site_kept(project: Path, at_home: Params, start: Tensors) -> None:
    from zk0.evaluation.held_out import held_out_loss

    run = run_federation(InProcessGrid(client_app, project, 2, LIMIT), project, at_home, BASE)

    row = read_lines(project / "results" / "federation" / "rounds.jsonl")[2]
    shared = trainable_tensors(load_checkpoint(project / "checkpoints" / "last").policy)
    warm, site = warm_policy(project, BASE[0], "cpu"), open_site(project, 1, LIMIT)
    stats = {f: {k: torch.tensor(v).numpy() for k, v in s.items()} for f, s in run.stats.items()}
    losses = []
    for name, tensors in {"own": home_of(project, run.run, 1).into(dict(shared), 2), "global": shared}.items():
        warm.show(name, tensors)
        loaded, draws = warm.fitted(stats), at_home.evaluation.loss_draws
        losses.append(held_out_loss(loaded, site.held_out_frames, draws, at_home.seed))
    assert row["sites"][site.manifest.site]["held_out_loss"] == pytest.approx(losses[0], rel=1e-4)
    assert abs(losses[0] - losses[1]) > 1e-3 * losses[0]


def test_of_a_round_taken_up_again_the_later_ones_do_not_count(tmp_path: Path) -> None:
    home = Home.of(SiteMemory.of(tmp_path, "run", 0), ["*layernorm*"])
    start = {"layernorm": torch.zeros(2), "proj": torch.zeros(2)}
    for number in (1, 2, 4):
        home.keep(number, start, {"layernorm": torch.full((2,), float(number)), "proj": torch.ones(2)})

    found = [home.into(start, number)["layernorm"][0].item() for number in (0, 1, 2, 3, 4, 9)]

    assert found == [0, 1, 2, 2, 4, 4]
    assert home.into(start, 4)["proj"].tolist() == [0, 0]


def test_without_patterns_nothing_is_kept(tmp_path: Path) -> None:
    home, update = Home.of(SiteMemory.of(tmp_path, "run", 0), ()), {"layernorm": torch.ones(2)}
    home.keep(1, {"layernorm": torch.zeros(2)}, update)

    assert update["layernorm"].tolist() == [1, 1] and not list(tmp_path.iterdir())
    assert digest_tensors(home.into(update, 1)) == digest_tensors(update)


@pytest.mark.parametrize(
    ("patterns", "rule"),
    [
        (["*layrnorm*"], r"no tensor that trains matches '\*layrnorm\*'; they are called as model"),
        (["*"], r"matches all \d+ tensors that train: none are shared"),
    ],
)
def test_patterns_that_cannot_be_meant(project: Path, at_home: Params, patterns: list[str], rule: str) -> None:
    federation = at_home.federation.model_copy(update={"local": tuple(patterns)})
    params = at_home.model_copy(update={"federation": federation})

    with pytest.raises(StageError, match=rule):
        run_federation(InProcessGrid(client_app, project, 2, LIMIT), project, params, BASE)


def test_it_goes_with_no_privacy() -> None:
    content = {"policy": {"base": "random:nano"}, "data": {"sites": {"a": "sim:pull-blue-bar"}}}
    settings = {"federation": {"local": ["*norm*"], "weighting": "equal"}, "privacy": {"mode": "site"}}

    with pytest.raises(ParamsError, match=r"federation.local .* privacy.mode site would put noise in their place"):
        parse_params(content | settings)
