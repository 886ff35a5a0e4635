"""Training an arm: in one place (budgets, schedule, best checkpoint), and by the real federation in its own folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from zk0.data.manifest import read_manifests
from zk0.errors import StageError
from zk0.federation.run import run_federation
from zk0.federation.server import FederationError
from zk0.params import Params, parse_params, with_changes
from zk0.policy.trainable import digest_tensors
from zk0.records.run import Event
from zk0.study import arms, training
from zk0.study.project import StudyProject, first_episodes
from zk0.study.project import prepared as prepared_study
from zk0.study.training import Cost, Trained, federate, plan_of, train_in_one_place


def test_both_budgets(local_project: StudyProject, small_params: Params) -> None:
    params = with_changes(small_params, {"training.decay_steps": 3})

    by_steps = plan_of(arms.pooled("steps"), params, local_project)
    by_samples = plan_of(arms.pooled("samples"), params, local_project)
    alone = plan_of(arms.alone("cubes-1"), params, local_project)

    assert (alone.stops, alone.steps, alone.batch, alone.partition, alone.decay_steps) == (2, 2, 4, 1, 3)
    assert (by_steps.stops, by_steps.steps, by_steps.batch, by_steps.decay_steps) == (2, 2, 8, 3)
    assert (by_samples.stops, by_samples.steps, by_samples.batch, by_samples.decay_steps) == (2, 4, 4, 6)
    assert [manifest.site for manifest in by_steps.sites] == ["cubes-0", "cubes-1"]


def test_arms_that_train_elsewhere_have_no_plan(local_project: StudyProject, small_params: Params) -> None:
    with pytest.raises(StageError, match="does not train in one place"):
        plan_of(arms.federated(), small_params, local_project)
    with pytest.raises(StageError, match="no site 'cubes-2'"):
        plan_of(arms.alone("cubes-2"), small_params, local_project)


def test_pooled_training_repeats_and_depends_on_the_seed(local_project: StudyProject, small_params: Params) -> None:
    plan = plan_of(arms.pooled("samples"), small_params, local_project)

    one, again = (train_in_one_place(local_project, small_params, plan) for _ in range(2))
    other = train_in_one_place(local_project, small_params.model_copy(update={"seed": 2}), plan)

    assert digest_tensors(one.tensors) == digest_tensors(again.tensors)
    assert digest_tensors(one.tensors) != digest_tensors(other.tensors)
    assert (one.cost.steps, one.cost.samples, len(one.cost.losses)) == (8, 32, 2)
    assert one.cost.best == 1 + one.cost.losses.index(min(one.cost.losses))
    assert again.cost.losses == one.cost.losses


def test_pooled_normalisation_is_the_federations(
    local_project: StudyProject, small_params: Params, tmp_path: Path
) -> None:
    plan = plan_of(arms.pooled("samples"), small_params, local_project)

    pooled = train_in_one_place(local_project, small_params, plan)
    federated = federate(local_project, small_params, tmp_path / "run")

    assert pooled.stats is not None and federated.stats is not None
    for feature, values in federated.stats.items():
        for name, value in values.items():
            torch.testing.assert_close(torch.as_tensor(pooled.stats[feature][name]), torch.as_tensor(value))


def test_alone_equals_a_federation_of_one(tmp_path: Path, params_content: dict[str, Any]) -> None:
    """Up to what start + (trained - start) rounds away each round."""
    content = params_content | {
        "data": {**params_content["data"], "partition": {"scheme": "none"}},
        "training": {**params_content["training"], "keep_moments": True},
    }
    params = parse_params(content)
    project = prepared_study(tmp_path, params)

    alone = train_in_one_place(project, params, plan_of(arms.alone("cubes"), params, project))
    federated = federate(project, params, tmp_path / "run")

    assert alone.cost.best == federated.cost.best
    assert (alone.cost.steps, alone.cost.samples) == (federated.cost.steps, federated.cost.samples) == (4, 16)
    for name, tensor in federated.tensors.items():
        torch.testing.assert_close(alone.tensors[name], tensor, rtol=1e-4, atol=1e-6)


def test_personalised_goes_on_from_a_model(local_project: StudyProject, small_params: Params) -> None:
    params = with_changes(small_params, {"study.personal_steps": 4})
    warm = local_project.policy(params)
    stats = {f: {k: v + 1 for k, v in values.items()} for f, values in _stats(local_project, params).items()}
    start = Trained({name: tensor + 0.01 for name, tensor in warm.first.items()}, stats, Cost())

    found = train_in_one_place(
        local_project, params, plan_of(arms.personalised("cubes-0"), params, local_project), start
    )

    assert found.stats is stats
    assert found.cost.steps == 4 and len(found.cost.losses) == 4
    change = max(float((found.tensors[name] - start.tensors[name]).abs().max()) for name in start.tensors)
    assert 0 < change < 0.01  # four steps of at most the learning rate each


def _stats(project: StudyProject, params: Params) -> Any:
    return train_in_one_place(project, params, plan_of(arms.alone("cubes-0"), params, project)).stats


def test_a_share_of_the_episodes_is_the_first_of_them(local_project: StudyProject) -> None:
    site = read_manifests(local_project.root)[0][0]

    assert first_episodes(site, 2 / 3) == site.train_episodes[:2] and first_episodes(site, 0.01)
    few = local_project.train_frames(site, 1 / 3)
    assert set(few.episodes.tolist()) == set(site.train_episodes[:1])
    assert len(few) < len(local_project.train_frames(site))


def test_trained_survives_the_disk_and_damage_is_told(tmp_path: Path) -> None:
    stats = {"action": {"mean": torch.ones(2).numpy(), "std": torch.full((2,), 2.0).numpy()}}
    model = Trained(
        {"w": torch.arange(3.0)}, stats, Cost(steps=2, samples=4, seconds=0.5, bytes=7, best=1, losses=(0.3,))
    )
    model.save(tmp_path / "model")

    again = Trained.load(tmp_path / "model")

    assert again is not None and again.cost == model.cost and torch.equal(again.tensors["w"], model.tensors["w"])
    assert again.stats is not None and again.stats["action"]["std"].tolist() == [2, 2]
    assert Trained.load(tmp_path / "absent") is None
    Trained({"w": torch.zeros(3)}, None, Cost()).save(tmp_path / "other")
    (tmp_path / "other" / "trainable.safetensors").replace(tmp_path / "model" / "trainable.safetensors")
    with pytest.raises(StageError, match=r"Delete .* to train anew"):
        Trained.load(tmp_path / "model")


# -- the federated arm ----------------------------------------------------------------------------


def test_same_params_and_seed_give_equal_tensors(
    local_project: StudyProject, small_params: Params, tmp_path: Path
) -> None:
    one = federate(local_project, small_params, tmp_path / "one")
    again = federate(local_project, small_params, tmp_path / "again")
    other = federate(local_project, small_params.model_copy(update={"seed": 2}), tmp_path / "other")

    assert digest_tensors(one.tensors) == digest_tensors(again.tensors)
    assert digest_tensors(one.tensors) != digest_tensors(other.tensors)
    assert one.cost.steps == 4 and one.cost.samples == 2 * 4 * 4 and one.cost.bytes > 0
    assert one.cost.losses == again.cost.losses and len(one.cost.losses) == 2


def test_proximal_term_of_zero_changes_nothing(
    local_project: StudyProject, small_params: Params, tmp_path: Path
) -> None:
    plain = federate(local_project, small_params, tmp_path / "plain")
    prox = federate(local_project, with_changes(small_params, {"federation.strategy": "fedprox"}), tmp_path / "prox")

    assert digest_tensors(plain.tensors) == digest_tensors(prox.tensors)


def test_the_study_shares_data_and_features_and_keeps_nothing_else(
    local_project: StudyProject, small_params: Params, tmp_path: Path
) -> None:
    before = {path.name for path in local_project.root.iterdir()} | {".cache"}

    federate(local_project, small_params, tmp_path / "run")

    assert {path.name for path in local_project.root.iterdir()} == before
    assert (tmp_path / "run" / "data").resolve() == local_project.root / "data"
    assert list((local_project.root / ".cache" / "features").glob("*/about.json"))


def test_a_stopped_run_goes_on(
    local_project: StudyProject, small_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = federate(local_project, small_params, tmp_path / "whole")

    def stopping(grid, root, params, base):  # type: ignore[no-untyped-def]
        def listen(event: Event) -> None:
            if event.event == "round-start" and event.round == 2:
                raise KeyboardInterrupt

        return run_federation(grid, root, params, base, listen)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training, "run_federation", stopping)
        federate(local_project, small_params, tmp_path / "run")
    resumed = federate(local_project, small_params, tmp_path / "run")

    assert digest_tensors(resumed.tensors) == digest_tensors(whole.tensors)
    assert resumed.cost.samples == whole.cost.samples


def test_a_malicious_site_changes_the_model(local_project: StudyProject, small_params: Params, tmp_path: Path) -> None:
    honest = federate(local_project, small_params, tmp_path / "honest")
    attacked = federate(local_project, small_params, tmp_path / "attacked", "sign-flip")

    assert digest_tensors(honest.tensors) != digest_tensors(attacked.tensors)
    with pytest.raises(ValueError, match="unknown attack 'flip'"):
        federate(local_project, small_params, tmp_path / "unknown", "flip")


def test_a_run_that_noise_breaks_counts_up_to_where_it_came(
    local_project: StudyProject, small_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without noise or an attack it is an error, as ever; here the second round is broken in each."""

    def breaking(grid, root, params, base):  # type: ignore[no-untyped-def]
        def listen(event: Event) -> None:
            if event.event == "round-start" and event.round == 2:
                raise FederationError("round 2: no site trained well")

        return run_federation(grid, root, params, base, listen)

    private = {"privacy.mode": "central", "federation.weighting": "equal", "privacy.target_epsilon": 1e9}
    monkeypatch.setattr(training, "run_federation", breaking)

    found = federate(local_project, with_changes(small_params, private), tmp_path / "noised")

    assert len(found.cost.losses) == 1 and found.cost.best == 1 and found.cost.epsilon
    assert len(federate(local_project, small_params, tmp_path / "attacked", "sign-flip").cost.losses) == 1
    with pytest.raises(FederationError, match="no site trained well"):
        federate(local_project, small_params, tmp_path / "honest")
