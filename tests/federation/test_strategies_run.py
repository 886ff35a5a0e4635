"""Every strategy on the embedded default in small: five arms, the shipped policy, two rounds; one arm may lie."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from federated_sites import LIMIT
from flwr.clientapp import ClientApp
from tests_support import REPO

from zk0.data.recordings import record_dataset
from zk0.data.sim.tasks import SimTask
from zk0.federation.attacks import Attack, poisoned
from zk0.federation.client_app import app as client_app
from zk0.federation.discovery import meet
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.protocol import Adapters
from zk0.federation.rounds import run_rounds
from zk0.federation.server import Server
from zk0.federation.site import warm_policy
from zk0.federation.state import RoundState, StateFolder
from zk0.files import write_json
from zk0.params import Params, Strategy, parse_params
from zk0.pipeline import prepare
from zk0.policy.trainable import Tensors
from zk0.records.journal import Journal
from zk0.sources_lock import resolve_sources

SITES = 5  # krum needs as many to bear one liar
LIAR = 2
Run = Callable[..., RoundState]


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory, cube_task: SimTask, first_seed: int) -> tuple[Path, Params]:
    """The shipped params with five sites of two simulated episodes and few steps, prepared."""
    folder = tmp_path_factory.mktemp("recorded") / "cubes"
    record_dataset(
        cube_task, folder, repo_id="zk0/cubes", episodes=2 * SITES, seed=first_seed, noise=0.25, image_size=96
    )
    content: dict[str, Any] = yaml.safe_load((REPO / "params.yaml").read_text())
    content["policy"]["base"] = str(REPO / "models" / "nano-base")
    dealt = {"scheme": "equal", "sites": SITES}
    content["data"] |= {"sites": {"arm": f"local:{folder}"}, "unseen": {}, "partition": dealt}
    content["training"] |= {"local_steps": 3, "batch": 8, "warmup_steps": 0}
    content["federation"] |= {"rounds": 2}
    content["evaluation"] |= {"loss_draws": 1}
    params, root = parse_params(content), tmp_path_factory.mktemp("arms")
    write_json(root / "sources.lock.json", resolve_sources(params, root))
    prepare.run(root, params)
    return root, params


@pytest.fixture(scope="module")
def run(arms: tuple[Path, Params], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two rounds of a strategy: ``run("krum")``, or with a liar ``run("krum", Attack(...))``; each is run once."""
    root, params = arms
    known: dict[Any, RoundState] = {}

    def once(strategy: str, attack: Attack | None = None) -> RoundState:
        if (strategy, attack) not in known:
            folder = tmp_path_factory.mktemp("run")
            federation = params.federation.model_copy(update={"strategy": strategy})
            app: ClientApp = client_app if attack is None else poisoned(client_app, LIAR, attack)
            server = Server(
                InProcessGrid(app, root, SITES, LIMIT),
                params.model_copy(update={"federation": federation}),
                folder.name,
                (params.policy.base, ""),
                Journal(folder / "events.jsonl"),
                folder / "waiting",
            )
            meet(server)
            first = start_of(root, params)
            known[strategy, attack] = run_rounds(server, StateFolder(folder / "state"), first, lambda *_: None)
        return known[strategy, attack]

    return once


def start_of(root: Path, params: Params) -> Tensors:
    return warm_policy(root, params.policy.base, "cpu", Adapters(alpha=params.policy.lora_alpha), 0).first


def moved(state: RoundState, start: Tensors) -> Tensors:
    """What two rounds have changed."""
    return {name: state.tensors[name] - tensor for name, tensor in start.items()}


def dot(one: Tensors, other: Tensors) -> float:
    return math.fsum(float((one[name].double() * other[name].double()).sum()) for name in one)


def distance(one: Tensors, other: Tensors) -> float:
    apart = {name: one[name] - other[name] for name in one}
    return math.sqrt(dot(apart, apart))


def alike(one: Tensors, other: Tensors) -> float:
    """The cosine of the angle between them."""
    return dot(one, other) / math.sqrt(dot(one, one) * dot(other, other))


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_two_rounds_learn_from_all_sites(run: Run, arms: tuple[Path, Params], strategy: str) -> None:
    """No strategy's own settings make steps of another order than the mean's, nor in another direction."""
    start = start_of(*arms)
    fedavg = moved(run("fedavg"), start)

    state = run(strategy)

    update = moved(state, start)
    assert [len(row.sites) for row in state.rounds[1:]] == [5, 5] and not any(row.left_out for row in state.rounds)
    assert len({row.digest for row in state.rounds}) == 3
    assert 0.3 < math.sqrt(dot(update, update) / dot(fedavg, fedavg)) < 3
    assert alike(update, fedavg) > 0.5
    assert state.rounds[-1].held_out_loss < state.rounds[0].held_out_loss


def test_fedprox_without_mu_is_fedavg_exactly(run: Run) -> None:
    assert [row.digest for row in run("fedprox").rounds] == [row.digest for row in run("fedavg").rounds]
    assert run("fedmedian").digest != run("fedavg").digest


@pytest.mark.parametrize("strategy", ["fedmedian", "trimmed-mean", "krum", "multi-krum"])
def test_liar_turns_the_mean_round_and_the_robust_ones_little(
    run: Run, arms: tuple[Path, Params], strategy: str
) -> None:
    """Its update is reversed and ten times as large, in both rounds."""
    start, attack = start_of(*arms), Attack("sign-flip", factor=10.0)

    def change(name: str) -> tuple[float, float]:
        """How far the liar moves the result, in lengths of the clean update; and how alike the two are."""
        clean, lied = moved(run(name), start), moved(run(name, attack), start)
        return distance(lied, clean) / math.sqrt(dot(clean, clean)), alike(lied, clean)

    (far, turned), (little, kept) = change("fedavg"), change(strategy)

    assert far > 1 and turned < 0
    assert little < far / 3 and kept > 0.4
