"""The federated arm is the real federation, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from zk0.federation.run import run_federation
from zk0.federation.server import FederationError
from zk0.params import Params, with_changes
from zk0.policy.trainable import digest_tensors
from zk0.records.run import Event
from zk0.study import federated
from zk0.study.federated import federate
from zk0.study.project import StudyProject


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
        patched.setattr(federated, "run_federation", stopping)
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
    monkeypatch.setattr(federated, "run_federation", breaking)

    found = federate(local_project, with_changes(small_params, private), tmp_path / "noised")

    assert len(found.cost.losses) == 1 and found.cost.best == 1 and found.cost.epsilon
    assert len(federate(local_project, small_params, tmp_path / "attacked", "sign-flip").cost.losses) == 1
    with pytest.raises(FederationError, match="no site trained well"):
        federate(local_project, small_params, tmp_path / "honest")
