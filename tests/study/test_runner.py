"""Pieces: made once, kept, gone on with, and never made of leaking data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from zk0.digests import RESULTS_VERSION
from zk0.errors import StageError
from zk0.params import Params
from zk0.study import runner as runner_module
from zk0.study.arms import Arm, alone, base, federated, personalised
from zk0.study.project import StudyProject
from zk0.study.results_store import Piece, StudyFolder
from zk0.study.runner import Job, Runner, jobs_of
from zk0.study.studies import Study


def some(study: Study, *arms: Arm, seeds: tuple[int, ...] = (1,)) -> Study:
    """A smaller study of the same params."""
    return replace(study, arms=arms, seeds=seeds, scenes=range(200_000, 200_002))


def by_arm(folder: StudyFolder) -> dict[str, dict[int, Piece]]:
    return {arm.name: found for arm, found in folder.pieces(folder.record())}


def files(folder: StudyFolder) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((folder.folder / "pieces").iterdir())}


def test_a_whole_comparison(compared: StudyFolder, comparison_study: Study) -> None:
    record = compared.record()

    made = by_arm(compared)
    assert [arm.name for arm in record.arms] == [arm.name for arm in comparison_study.arms]
    assert list(made["base"]) == [0]
    assert all(list(found) == [1, 2] for name, found in made.items() if name != "base")
    one = made["federated"][1]
    assert list(one.tasks) == ["red", "disc", "purple"]
    assert [one.tasks[task].role for task in one.tasks] == ["site", "site", "unseen"]
    assert list(one.tasks["purple"].outcomes) == [200_000, 200_001, 200_002]
    assert (one.steps, one.samples, one.episodes) == (4, 32, 4) and one.bytes > 0 and one.trainable > 10_000
    assert (made["base"][0].steps, made["base"][0].bytes, made["base"][0].episodes) == (0, 0, 0)
    assert made["alone:red"][1].episodes == 2 and made["alone:red"][1].bytes == 0
    assert made["federated:int8"][1].bytes < one.bytes
    assert str(Path.home()) not in json.dumps(record.model_dump(mode="json"))


def test_nothing_is_left_of_a_study_but_the_model_that_others_start_from(
    compared: StudyFolder, project: StudyProject
) -> None:
    assert not list((project.root / "runs").iterdir())
    assert {path.name.split("-seed")[0] for path in (project.root / "models").iterdir()} == {"federated"}


def test_the_training_seed_is_not_the_data_seed(compared: StudyFolder) -> None:
    made = by_arm(compared)
    one, two = made["federated"][1], made["federated"][2]

    assert one.losses != two.losses
    assert list(one.tasks["red"].episode_error_deg) == list(two.tasks["red"].episode_error_deg)
    assert one.tasks["red"].held_out_loss != two.tasks["red"].held_out_loss


def test_pieces_are_not_made_twice(
    compared: StudyFolder, study_root: Path, project: StudyProject, comparison_study: Study, study_params: Params
) -> None:
    before = files(compared)

    Runner(study_root, project, comparison_study).run(study_params)

    assert files(compared) == before


def test_pieces_of_an_earlier_state_stay_and_do_not_count(
    tmp_path: Path,
    project: StudyProject,
    comparison_study: Study,
    study_params: Params,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runner = Runner(tmp_path, project, some(comparison_study, base()))
    with monkeypatch.context() as patched:
        patched.setattr("zk0.digests.RESULTS_VERSION", 1)
        patched.setattr(runner_module, "RESULTS_VERSION", 1)
        runner.run(study_params)
    old = files(runner.folder)

    runner.run(study_params)

    assert "the 1 pieces that study.json named until now are of results version 1" in capsys.readouterr().out
    assert files(runner.folder).items() > old.items()
    (now,) = runner.folder.record().arms[0].files.values()
    assert now not in old and runner.folder.record().results_version == RESULTS_VERSION
    assert json.loads((runner.folder.folder / "study-results-1.json").read_text())["results_version"] == 1


def test_a_stop_costs_one_piece(
    tmp_path: Path,
    project: StudyProject,
    comparison_study: Study,
    study_params: Params,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = some(comparison_study, base(), alone("red"), alone("disc"))
    runner = Runner(tmp_path, project, study)
    real = runner_module.train_in_one_place

    def stopping(project, params, plan, start=None):  # type: ignore[no-untyped-def]
        if plan.sites[0].site == "disc":
            raise KeyboardInterrupt
        return real(project, params, plan, start)

    with monkeypatch.context() as patched, pytest.raises(StageError, match="stopped; 2 of 3 pieces are kept"):
        patched.setattr(runner_module, "train_in_one_place", stopping)
        runner.run(study_params)
    kept = files(runner.folder)
    assert len(kept) == 2

    pieces = runner.run(study_params)

    assert [piece.arm for piece in pieces] == ["base", "alone:red", "alone:disc"]
    assert {name: time for name, time in files(runner.folder).items() if name in kept} == kept


def test_a_stop_between_training_and_judging_does_not_train_again(
    tmp_path: Path,
    project: StudyProject,
    comparison_study: Study,
    study_params: Params,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = Runner(tmp_path, project, some(comparison_study, alone("disc"), seeds=(7,)))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(StageError, match="stopped; 0 of 1"):
        patched.setattr(runner_module, "judge", stop)
        runner.run(study_params)
    with monkeypatch.context() as patched:
        patched.setattr(runner_module, "train_in_one_place", stop)
        (piece,) = runner.run(study_params)

    assert piece.steps == 4 and list(piece.tasks) == ["red", "disc", "purple"]


def test_a_personalised_arm_starts_from_the_kept_federation(
    compared: StudyFolder,
    study_root: Path,
    project: StudyProject,
    comparison_study: Study,
    study_params: Params,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = replace(comparison_study, name="personalisation", arms=(federated(), personalised("red")), seeds=(1,))

    def unexpected(*_: object) -> None:
        raise AssertionError("the federation was run before")

    monkeypatch.setattr(runner_module, "federate", unexpected)
    shared, own = Runner(study_root, project, study).run(study_params)

    assert shared == by_arm(compared)["federated"][1]
    assert own.steps == 4 and own.episodes == 4
    assert list(own.tasks) == ["red"]


def test_leakage_stops_an_arm_before_it_trains(
    tmp_path: Path, project: StudyProject, comparison_study: Study, study_params: Params
) -> None:
    red, disc = project.sites
    digests = disc.episode_digests | {disc.held_out_episodes[0]: red.episode_digests[red.train_episodes[0]]}
    leaking = replace(project, sites=[red, disc.model_copy(update={"episode_digests": digests})])
    runner = Runner(tmp_path, leaking, some(comparison_study, alone("red")))

    with pytest.raises(StageError, match=r"leakage: held-out episode .* of 'disc' is the same as episode"):
        runner.run(study_params)
    assert not (runner.folder.folder / "pieces").exists()


def test_diverging_training_names_arm_and_seed(
    tmp_path: Path, project: StudyProject, comparison_study: Study, study_params: Params
) -> None:
    wild = Arm("wild", "pooled", "diverges", budget="steps", changes={"training.learning_rate": 1e30})

    with pytest.raises(StageError, match=r"arm 'wild', training seed 1: .*training.learning_rate"):
        Runner(tmp_path, project, some(comparison_study, wild)).run(study_params)


def test_what_decides_the_figures_decides_the_file(
    project: StudyProject, comparison_study: Study, tmp_path: Path
) -> None:
    job = Job(alone("red"), 1)
    name = Runner(tmp_path, project, comparison_study)._file(job)

    fewer = replace(comparison_study, scenes=range(200_000, 200_002))
    longer = replace(
        comparison_study,
        params=comparison_study.params.model_copy(
            update={"evaluation": comparison_study.params.evaluation.model_copy(update={"max_steps": 9})}
        ),
    )
    others = [Runner(tmp_path, project, study)._file(job) for study in (fewer, longer)]
    others.append(Runner(tmp_path, project, comparison_study)._file(replace(job, seed=2)))

    assert name.startswith("alone-red-seed1-") and name.endswith(".json")
    assert len({name, *others}) == 4


def test_jobs_go_seed_by_seed_and_the_base_once(comparison_study: Study) -> None:
    jobs = jobs_of(comparison_study)

    assert [(job.arm.name, job.seed) for job in jobs[:2]] == [("base", 0), ("alone:red", 1)]
    assert len(jobs) == 2 * len(comparison_study.arms) - 1
    assert [job.seed for job in jobs_of(comparison_study, "federated")] == [1, 2]
    with pytest.raises(ValueError, match="did you mean 'federated'"):
        jobs_of(comparison_study, "federatd")
