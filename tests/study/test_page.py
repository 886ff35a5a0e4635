"""Rates, differences, tables, plots and the page, from pieces of a real run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from zk0.errors import StageError
from zk0.files import read_json, write_json
from zk0.params import Params, with_changes
from zk0.study.arms import alone, attacked, federated, personalised
from zk0.study.page import write_page
from zk0.study.project import StudyProject
from zk0.study.results import StudyResult
from zk0.study.results_store import StudyFolder
from zk0.study.runner import Runner
from zk0.study.studies import Study, study_named
from zk0.study.tables import (
    arms_table,
    attack_table,
    comparison_verdicts,
    difference_table,
    markdown,
    p_text,
    personal_table,
    privacy_table,
    robustness_verdicts,
)


@pytest.fixture
def copied(compared: StudyFolder, tmp_path: Path) -> StudyFolder:
    """The comparison in a project of its own, to be changed."""
    folder = tmp_path / "results" / "studies" / "comparison"
    shutil.copytree(compared.folder, folder)
    return StudyFolder(folder)


def with_outcomes(folder: StudyFolder, arm: str, successes: dict[int, list[int]]) -> None:
    """Rewrite an arm's outcomes on every task: training seed to 1 and 0 by scene."""
    record = next(one for one in folder.record().arms if one.name == arm)
    for seed, values in successes.items():
        piece = folder.piece(record.files[seed])
        assert piece is not None
        told = piece.model_dump(mode="json")
        for task in told["tasks"].values():
            task["outcomes"] = {scene: bool(v) for scene, v in zip(task["outcomes"], values, strict=True)}
        write_json(folder.folder / "pieces" / record.files[seed], told)


def test_rates_and_advantages_are_those_of_the_outcomes(copied: StudyFolder) -> None:
    with_outcomes(copied, "federated", {1: [1, 1, 0], 2: [1, 1, 1]})
    with_outcomes(copied, "base", {0: [1, 0, 0]})

    result = StudyResult.read(copied)
    rate, gap = result.rate("federated", ("red", "disc")), result.advantage("federated", "base", ("red", "disc"))

    assert result.closed_loop and result.missing == 0
    assert rate is not None and rate.value == pytest.approx(5 / 6) and rate.low < 5 / 6 < rate.high
    assert gap is not None and gap.value == pytest.approx(5 / 6 - 1 / 3)
    assert result.rate("federated", ()) is None and result.advantage("federated", "absent", ("red",)) is None


def test_what_a_report_shows_is_of_the_arms_that_differ_in_where_they_train(compared: StudyFolder) -> None:
    result = StudyResult.read(compared)

    told = result.summary({"red": "one", "disc": "two"})

    assert [arm.name for arm in told.arms] == [
        "base", "alone:red", "alone:disc", "pooled:steps", "pooled:samples", "federated",
    ]  # fmt: skip
    seen = result.rate("federated", ("red", "disc"))
    assert seen is not None and told.arms[-1].seen is not None
    assert (told.arms[-1].seen.value, told.arms[-1].seen.low) == (seen.value, seen.low)
    assert told.params == result.record.params and told.missing == 0


def test_without_outcomes_errors_are_compared_and_less_is_better(
    tmp_path: Path, local_project: StudyProject, small_params: Params, comparison_study: Study
) -> None:
    from zk0.study.project import prepared

    params = with_changes(small_params, {"data.held_out": 0.67})  # two held-out episodes a site, or no interval
    project = prepared(tmp_path, params)
    study = replace(comparison_study, params=params, arms=(federated(), alone("cubes-0")), seeds=(1,), scenes=range(0))
    runner = Runner(tmp_path, project, study)
    runner.run(params)

    result = StudyResult.read(runner.folder)
    errors = {
        name: [e for task in found.pieces[1].tasks.values() for e in task.episode_error_deg.values()]
        for name, found in result.arms.items()
    }
    both = ("cubes-0", "cubes-1")
    rate, gap = result.rate("federated", both), result.advantage("federated", "alone:cubes-0", both)

    assert not result.closed_loop
    assert rate is not None and rate.value == pytest.approx(sum(errors["federated"]) / 4) and rate.low < rate.high
    assert gap is not None
    assert gap.value == pytest.approx((sum(errors["alone:cubes-0"]) - sum(errors["federated"])) / 4)
    head, rows = arms_table(result)
    assert head[1] == "error, seen tasks" and rows[0][1].count("°") == 1
    assert comparison_verdicts(result) == []
    assert "no simulator" in write_page(tmp_path)[-1].read_text()


def test_tables_have_every_arm_and_every_comparison(copied: StudyFolder) -> None:
    result = StudyResult.read(copied)

    arms, differences = arms_table(result)[1], difference_table(result)[1]

    assert [row[0] for row in arms] == list(result.arms)
    compared = {(row[0], row[1]) for row in differences}
    assert {("alone:red", "its own"), ("alone:red", "the other sites'"), ("alone:red", "unseen")} <= compared
    assert ("pooled:samples", "seen") in compared and ("federated:int8", "unseen") in compared
    assert not [row for row in differences if row[0] == "federated"]
    assert markdown(["a", "b"], [["x|y", "1"]]).splitlines() == ["| a | b |", "| --- | --: |", "| x\\|y | 1 |"]
    assert p_text(None) == "–"


def test_aims_are_judged_by_the_paired_test(copied: StudyFolder) -> None:
    for arm in ("federated", "pooled:samples", "pooled:steps"):
        with_outcomes(copied, arm, {1: [1, 1, 1], 2: [1, 1, 1]})
    with_outcomes(copied, "base", {0: [0, 0, 0]})
    with_outcomes(copied, "alone:red", {1: [0, 0, 0], 2: [0, 0, 0]})

    result = StudyResult.read(copied)
    told = comparison_verdicts(result)

    gap = result.advantage("federated", "base", ("red", "disc"))
    assert gap is not None and gap.value == 1
    assert told[0].startswith("**Reached.** All data in one place reaches 80%")
    assert told[1].startswith("**Not reached.** Federated is at most 10 points below")  # three scenes cannot show it
    assert told[2].startswith("**Reached.**" if gap.p_better < 0.05 else "**Not reached.**")
    assert told[2].endswith(f"p better {p_text(gap.p_better)}.") and "The base is clearly below federated" in told[2]
    assert sum("red alone" in sentence for sentence in told) == 3


def test_the_page_is_made_of_the_pieces_and_says_what_is_missing(copied: StudyFolder, tmp_path: Path) -> None:
    (tmp_path / "results" / "studies" / "NOTES.md").write_text("Larger images did not help.\n")
    stale = tmp_path / "docs" / "images" / "results" / "stale.svg"
    stale.parent.mkdir(parents=True)
    stale.write_text("<svg/>")

    written = write_page(tmp_path)
    page = written[-1].read_text()

    result = StudyResult.read(copied)
    for arm in result.arms:
        assert f"`{arm}`" in page
    assert markdown(*arms_table(result)) in page
    assert "Larger images did not help." in page and "zk0 study comparison" in page and "still to be made" not in page
    plots = [path for path in written if path.suffix == ".svg"]
    assert {path.name for path in plots} == {"comparison-rates.svg", "comparison-differences.svg"}
    assert all(path.name in page for path in plots) and not stale.exists()
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in write_page(tmp_path)] == before

    record = next(arm for arm in copied.record().arms if arm.name == "pooled:steps")
    (copied.folder / "pieces" / record.files[2]).unlink()
    assert "1 pieces are still to be made" in write_page(tmp_path)[-1].read_text()


def test_damaged_and_missing_files_are_told(copied: StudyFolder, tmp_path: Path) -> None:
    file = next((copied.folder / "pieces").iterdir())
    content = read_json(file)
    write_json(file, content | {"steps": -1})
    with pytest.raises(StageError, match=r"is damaged \(steps is -1: .*greater than or equal to 0\); delete it"):
        write_page(tmp_path)

    file.write_text("{")
    with pytest.raises(StageError, match=r"is damaged .*delete it and run the study again"):
        write_page(tmp_path)

    shutil.rmtree(copied.folder)
    with pytest.raises(StageError, match=r"holds no piece of any study; `zk0 study comparison` makes them"):
        write_page(tmp_path)
    with pytest.raises(StageError, match=r"study.json not found; `zk0 study comparison` writes it"):
        copied.record()


def test_personalisation(
    compared: StudyFolder, study_root: Path, project: StudyProject, study_params: Params, comparison_study: Study
) -> None:
    arms = (federated(), alone("red"), personalised("red"))
    runner = Runner(study_root, project, replace(comparison_study, name="personalisation", arms=arms))
    runner.run(study_params)

    head, rows = personal_table(StudyResult.read(runner.folder))

    assert [row[0] for row in rows] == ["red"] and len(rows[0]) == len(head)
    assert all("(" in cell for cell in rows[0][1:4])


@pytest.mark.parametrize("name", ["robustness", "robustness-confirmation"])
def test_robustness(
    name: str, tmp_path: Path, project: StudyProject, study_params: Params, comparison_study: Study
) -> None:
    params = with_changes(study_params, {"study.robust_strategy": "fedavgm"})
    arms = (attacked("fedavg", None), attacked("fedavgm", None), attacked("fedavgm", "sign-flip"))
    study = replace(comparison_study, name=name, params=params, arms=arms, seeds=(1,), scenes=range(200_000, 200_002))
    runner = Runner(tmp_path, project, study)
    runner.run(params)
    for arm, values in {"honest:fedavgm": [1, 1], "sign-flip:fedavgm": [1, 0], "honest:fedavg": [1, 1]}.items():
        with_outcomes(runner.folder, arm, {1: values})

    result = StudyResult.read(runner.folder)
    rows = attack_table(result)[1]

    assert [row[0] for row in rows] == ["fedavg", "fedavgm"]
    assert "50% of its own" in rows[1][2]
    told = robustness_verdicts(result)
    assert told[0].startswith("**Not reached.** fedavgm keeps 50% of its success under sign-flip")
    assert len(told) == 1 and rows[0][2] == "–"  # FedAvg was not attacked yet
    assert "Every strategy under every attack" in write_page(tmp_path)[-1].read_text()


def test_privacy_tells_what_was_spent(tmp_path: Path, project: StudyProject, study_params: Params) -> None:
    study = study_named("privacy", study_params)
    arms = tuple(arm for arm in study.arms if arm.name in ("no privacy", "epsilon 8", "epsilon 8 at each site"))
    runner = Runner(tmp_path, project, replace(study, arms=arms, seeds=(1,)))
    runner.run(study.params)

    result = StudyResult.read(runner.folder)
    spent = {name: found.pieces[1].epsilon for name, found in result.arms.items()}
    rows = {row[0]: row for row in privacy_table(result)[1]}

    assert spent["no privacy"] is None and rows["no privacy"][1] == "–"
    for name in ("epsilon 8", "epsilon 8 at each site"):
        assert spent[name] == pytest.approx(8.0, rel=0.01) and rows[name][1] == f"{spent[name]:.3g}"
        assert rows[name][2] == "2" and "(" in rows[name][5]
    assert "## Privacy, few sites" in write_page(tmp_path)[-1].read_text()


def test_feasibility_draws_a_curve_for_each_axis(tmp_path: Path, project: StudyProject, study_params: Params) -> None:
    study = study_named("feasibility", study_params)
    whole, half, steps = ("all episodes, 8 steps", "1/2 of the episodes, 8 steps", "all episodes, 4 steps")
    wanted = {f"{name}, the whole expert" for name in (whole, half, steps)} | {f"{whole}, adapters of rank 4"}
    points = tuple(arm for arm in study.arms if arm.name in wanted)
    assert len(points) == 4
    runner = Runner(tmp_path, project, replace(study, arms=points, scenes=range(100_000, 100_002)))
    runner.run(study.params)

    written = write_page(tmp_path)

    assert {path.name for path in written if path.suffix == ".svg"} == {
        "feasibility-episodes.svg",
        "feasibility-steps.svg",
        "feasibility-trainable.svg",
    }
    assert "## Feasibility" in written[-1].read_text()
