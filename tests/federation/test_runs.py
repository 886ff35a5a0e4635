"""Whole runs: resumed, with codecs, with adapters, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from federated_sites import (
    BAD_UPDATES,
    BASE,
    LIMIT,
    MakeServer,
    copy_project,
    crash,
    spoilt,
    train_round,
    values,
)
from flwr.app import RecordDict

from zk0.data.manifest import Manifest, read_manifests
from zk0.federation import protocol
from zk0.federation.client_app import app as client_app
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.rounds import run_round
from zk0.federation.run import config_digest, run_federation
from zk0.federation.server import FederationError
from zk0.federation.site import forget, open_site, warm_policy
from zk0.federation.start import warm_start
from zk0.federation.state import RoundState
from zk0.files import read_json, write_json
from zk0.params import Params
from zk0.params.training import TrainingParams
from zk0.policy.checkpoint import Stats, load_checkpoint
from zk0.policy.start import load_start
from zk0.policy.trainable import digest_tensors, trainable_tensors
from zk0.records.files import read_lines

PLAIN: dict[str, Any] = {}
AT_HOME: dict[str, Any] = {"local": ("*layernorm*",)}
LOSSY: dict[str, Any] = {"uplink": "int4", "downlink": "int8", "strategy": "fedadam", "server_learning_rate": 0.01}


@pytest.mark.parametrize(
    ("settings", "moments", "kept"),
    [(PLAIN, False, []), (LOSSY, True, ["round-0002", "round-0003"]), (AT_HOME, False, ["home"])],
    ids=["plain", "lossy", "at-home"],
)
def test_interrupted_run_ends_as_if_it_had_not_been(
    project: Path, quick: Params, tmp_path: Path, settings: dict[str, Any], moments: bool, kept: list[str]
) -> None:
    """Codecs' errors, kept moments, a site's own tensors and the server's optimiser are taken up again as well."""
    federation = quick.federation.model_copy(update=settings | {"min_replies": 1.0, "rounds": 3})
    training = quick.training.model_copy(update={"keep_moments": moments})
    params = quick.model_copy(update={"federation": federation, "training": training})
    whole = run_federation(InProcessGrid(client_app, project, 2, LIMIT), project, params, BASE)
    other = copy_project(project, tmp_path / "other")
    seen: list[int] = []

    def dies_in_round_3(content: RecordDict) -> None:
        seen.append(1)
        if len(seen) == 3:
            crash(content)

    with pytest.raises(FederationError, match="round 3: 1 of 2 sites trained well"):
        run_federation(InProcessGrid(spoilt(protocol.TRAIN, dies_in_round_3), other, 2, LIMIT), other, params, BASE)
    forget()  # as another process would
    resumed = run_federation(InProcessGrid(client_app, other, 2, LIMIT), other, params, BASE)

    assert resumed.run == whole.run and resumed.resumed_at_rounds == (2,)
    assert whole.resumed_at_rounds == ()
    assert resumed.checkpoints == whole.checkpoints
    last = load_checkpoint(other / "checkpoints" / "last")
    rows = read_lines(other / "results" / "federation" / "rounds.jsonl")
    assert [row["round"] for row in rows] == [0, 1, 2, 3] and all(row["save_s"] > 0 for row in rows[3:])
    assert digest_tensors(trainable_tensors(last.policy)) == rows[3]["digest"]
    events = [event["event"] for event in read_lines(other / "results" / "federation" / "events.jsonl")]
    assert events.count("round-start") == 4 and events.count("resume") == events.count("failed") == 1
    assert events[-1] == "done"
    assert RoundState(0, {}, (), _stats_of(other, resumed.run)).moments().count == 2 * 3 * _mean_frames(project)
    versions = sorted(path.name for path in (other / "state" / whole.run).glob("sites/0001/*"))
    assert versions == kept


def test_a_model_travels_once_a_round(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    """Sites have the start, and train from what they were sent to evaluate."""
    server = make_server()
    server.held = dict.fromkeys(server.sites, state.digest)
    size = 4 * sum(tensor.numel() for tensor in state.tensors.values())

    one = run_round(server, state, stats)
    two = run_round(server, one, stats)

    for row in (one.rounds[-1], two.rounds[-1]):
        assert row.bytes_up == 2 * size
        assert 2 * size < row.bytes_down < 2 * size + 1000  # and the statistics
    int4 = run_round(make_server(uplink="int4", downlink="int4"), state, stats).rounds[-1]
    assert int4.bytes_up < 0.14 * 2 * size


def test_site_that_lacks_the_model_gets_all_of_it(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    undisturbed = make_server(downlink="int8")
    expected = run_round(undisturbed, run_round(undisturbed, state, stats), stats)

    server = make_server(downlink="int8")
    one = run_round(server, state, stats)
    forget()  # the sites' process is another
    two = run_round(server, one, stats)

    assert two.digest == expected.digest and two.rounds[-1].left_out == {}
    assert two.rounds[-1].bytes_down > expected.rounds[-1].bytes_down


def test_site_that_goes_on_lacking_it_is_left_out(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    def lacks(content: RecordDict) -> None:
        for record in [name for name in content if name != "header"]:
            content.pop(record)
        values(lacks="abc")(content)

    server = make_server(spoilt(protocol.TRAIN, lacks))

    train_round(server, state, stats)

    assert server.left_out == {"cubes-1": "the site still lacks model abc, which it was sent"}


def test_only_updates_that_were_averaged_count_as_used(
    make_server: MakeServer, state: RoundState, stats: Stats
) -> None:
    server = make_server(spoilt(protocol.TRAIN, BAD_UPDATES["nan"][0]), uplink="fp32")

    one = run_round(server, state, stats)

    assert one.used == {0: 1}


def test_adapters_train_travel_and_are_merged_into_the_checkpoint(project: Path, quick: Params) -> None:
    policy = quick.policy.model_copy(update={"lora_rank": 4})
    params = quick.model_copy(update={"policy": policy})

    report = run_federation(InProcessGrid(client_app, project, 2, LIMIT), project, params, BASE)

    plain = load_checkpoint(project / "checkpoints" / "last")
    assert not any("lora" in name for name, _ in plain.policy.named_parameters())
    whole = trainable_tensors(plain.policy)
    start = warm_policy(project, BASE[0], "cpu").first
    changed = [name for name, tensor in whole.items() if not torch.equal(tensor, start[name])]
    assert len(changed) > 20
    rows = read_lines(project / "results" / "federation" / "rounds.jsonl")
    assert 0 < rows[1]["bytes_up"] == 2 * report.policy.trainable_bytes
    assert report.policy.trainable_parameters < 0.2 * sum(tensor.numel() for tensor in whole.values())


def test_denoising_steps_are_the_checkpoints_and_no_others(project: Path, quick: Params) -> None:
    policy = quick.policy.model_copy(update={"denoising_steps": 2})

    run_federation(
        InProcessGrid(client_app, project, 2, LIMIT), project, quick.model_copy(update={"policy": policy}), BASE
    )

    assert load_checkpoint(project / "checkpoints" / "best").policy.config.num_steps == 2
    own = warm_start(project, quick, BASE[0]).start.policy.config.num_steps
    assert own == load_start(project, BASE[0], "cpu").policy.config.num_steps != 2


def _stats_of(root: Path, run: str) -> dict[str, Any]:
    return dict(read_json(root / "state" / run / "round-0003" / "state.json")["stats"])


def _mean_frames(root: Path) -> float:
    sites, _ = read_manifests(root)
    return sum(site.train_frames for site in sites) / 6


def test_cameras_the_policy_does_not_know_are_refused(project: Path, quick: Params) -> None:
    for path in (project / "data" / "manifests").iterdir():
        content = read_json(path)
        content["cameras"] = ["observation.images.side"]
        write_json(path, content)
    forget()

    with pytest.raises(
        FederationError, match=r"site 'cubes-0' has cameras observation\.images\.side, which the policy"
    ):
        run_federation(InProcessGrid(client_app, project, 2, LIMIT), project, quick, BASE)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"seed": 2}, False),
        ({"threads": 2}, False),
        ({"training": {"batch": 3}}, False),
        ({"training": {"smoothness": 1.0}}, False),
        ({"training": {"smoothness": 0.0}, "policy": {"denoising_steps": 0}}, True),
        ({"policy": {"denoising_steps": 3}}, False),
        ({"federation": {"rounds": 3}}, False),
        ({"federation": {"fraction": 0.5}}, False),
        ({"federation": {"stop_after": 3}}, False),
        ({"federation": {"server_schedule": "plateau"}}, False),
        ({"federation": {"schedule_patience": 4}}, False),
        ({"federation": {"timeout_s": 1.0, "min_replies": 0.5}}, True),
        ({"evaluation": {"rollouts": 5}}, True),
        ({"evaluation": {"loss_draws": 3}}, False),
        ({"tracking": {"experiment": "x"}}, True),
        ({"engine": {"name": "ray", "workers": 3, "cpus": 1}}, True),
    ],
)
def test_run_is_another_when_its_model_would_be(small_params: Params, change: dict[str, Any], same: bool) -> None:
    content = small_params.model_dump()
    for section, value in change.items():
        content[section] = content[section] | value if isinstance(value, dict) else value
    manifests = [Manifest.model_construct(digest=digest) for digest in "ab"]
    before = config_digest(small_params, "base", manifests)

    assert (config_digest(Params.model_validate(content), "base", manifests) == before) is same
    assert config_digest(small_params, "other", manifests) != before
    assert config_digest(small_params, "base", manifests[::-1]) != before


def test_key_counts_the_state_of_zk0_and_no_param_that_is_off(
    small_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A section with one more param, at its default and not, and another number of the results' version."""

    class Later(TrainingParams):
        swing: float = 0.0

    def later(**more: Any) -> str:
        training = Later(**small_params.training.model_dump(), **more)
        return config_digest(small_params.model_copy(update={"training": training}), "base", [])

    now = config_digest(small_params, "base", [])
    assert later() == later(swing=0.0) == now != later(swing=0.1)
    monkeypatch.setattr("zk0.__version__", "9.9.9")
    assert config_digest(small_params, "base", []) == now
    monkeypatch.setattr("zk0.digests.RESULTS_VERSION", 99)
    assert config_digest(small_params, "base", []) != now


def test_sites_data_is_loaded_once(prepared: Path) -> None:
    site = open_site(prepared, 0, LIMIT)

    assert isinstance(site.manifest, Manifest)
    assert open_site(prepared, 0, LIMIT) is site
    assert site.train_frames is site.train_frames and site.held_out_frames is site.held_out_frames
    assert len(site.train_frames) == site.manifest.train_frames
