"""The study of rooms at the smallest size: two owners in rooms of their own, two who join late."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from comparison_params import SMALL

from zk0.errors import StageError
from zk0.params import Params, parse_params, with_changes
from zk0.study.arms import arm_named
from zk0.study.judging import judge
from zk0.study.page import write_page
from zk0.study.project import StudyProject, prepared
from zk0.study.results import StudyResult
from zk0.study.results_store import Piece, StudyFolder
from zk0.study.rooms_tables import (
    arm_of,
    curve,
    gaps_table,
    newcomers,
    newcomers_table,
    owners_table,
    rooms_verdicts,
    ways,
)
from zk0.study.runner import Runner
from zk0.study.studies import study_named
from zk0.study.training import Trained, federate

OWNERS = {"red": "sim:push-red-cube-left@1", "disc": "sim:press-magenta-disc@2"}
JOINING = {"purple": "sim:push-purple-cylinder-left@3", "red-too": "sim:push-red-cube-left@4"}


@pytest.fixture(scope="module")
def params() -> Params:
    """Six episodes each, so that those who join late train on one, two and four."""
    data = {"data.sites": OWNERS, "data.unseen": JOINING, "data.episodes": 6, "data.held_out": 0.34}
    study = {"study.training_seeds": [1], "study.variants": {"own-norms": {"federation.local": ["*layernorm*"]}}}
    return with_changes(parse_params(SMALL), {**data, **study, "training.learning_rate": 0.01})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rooms")


@pytest.fixture(scope="module")
def recorded(root: Path, params: Params) -> StudyProject:
    return prepared(root, study_named("rooms", params).params)


@pytest.fixture(scope="module")
def run(root: Path, recorded: StudyProject, params: Params) -> StudyFolder:
    runner = Runner(root, recorded, study_named("rooms", params))
    runner.run(params)
    return runner.folder


def pieces(folder: StudyFolder) -> dict[str, Piece]:
    return {arm.name: found[min(found)] for arm, found in folder.pieces(folder.record())}


def test_owners_have_few_of_the_episodes_and_a_stranger_all(params: Params) -> None:
    data = study_named("rooms", with_changes(params, {"data.episodes": 30, "data.leave_out": {"red": [2]}})).params.data

    assert data.leave_out == {"red": (2, *range(15, 30)), "disc": tuple(range(15, 30))}
    assert not study_named("rooms", params).params.data.leave_out


def test_arms_of_owners_and_of_those_who_join_late(params: Params) -> None:
    study = study_named("rooms", with_changes(params, {"data.episodes": 30}))

    names = [arm.name for arm in study.arms]
    alone = [arm for arm in study.arms if arm.kind == "alone"]
    late = [arm for arm in study.arms if arm.kind == "newcomer"]
    assert names[:6] == ["base", "alone:red", "alone:disc", "pooled:steps", "pooled:samples", "federated"]
    assert all(arm.own_task_only for arm in (*alone, *late))
    assert {(arm.site, arm.episodes, arm.starts_from) for arm in late} == {
        (site, own, start) for site in JOINING for own in (5, 10, 20) for start in ("federated", None)
    }


@pytest.mark.parametrize(
    "change",
    [
        {"data.sites": {"red": "sim:push-red-cube-left", "disc": "sim:press-magenta-disc@2"}},
        {"data.sites": {"red": "sim:push-red-cube-left@3", "disc": "sim:press-magenta-disc@2"}},
        {"data.unseen": {}},
    ],
)
def test_everyone_needs_a_room_of_their_own(params: Params, change: dict[str, object]) -> None:
    with pytest.raises(StageError, match=r"needs a room of its own .* `zk0 profile use rooms` has them"):
        study_named("rooms", with_changes(params, change))


def test_who_joins_late_trains_on_the_first_and_is_judged_on_the_last(recorded: StudyProject) -> None:
    purple = recorded.with_newcomers().manifest("purple")

    assert purple.train_episodes == (0, 1, 2, 3) and purple.held_out_episodes == (4, 5)
    before = recorded.manifest("purple")
    assert purple.train_frames + purple.held_out_frames == before.held_out_frames and purple.digest != before.digest
    with_two = recorded.with_newcomers().train_frames(purple, most=2)
    assert set(with_two.episodes.tolist()) == {0, 1}


def test_what_is_trained_and_judged(run: StudyFolder) -> None:
    made = pieces(run)

    every = ["red", "disc", "purple", "red-too"]
    assert list(made["federated"].tasks) == list(made["base"].tasks) == list(made["pooled:steps"].tasks) == every
    assert list(made["alone:disc"].tasks) == ["disc"] and list(made[arm_of("purple", 2, True)].tasks) == ["purple"]
    late, scratch = made[arm_of("red-too", 4, True)], made[arm_of("red-too", 4, False)]
    assert scratch.episodes == 4 and late.episodes == 4 + made["federated"].episodes
    assert late.steps == scratch.steps == made["alone:disc"].steps
    assert late.losses != scratch.losses


def test_a_newcomer_is_made_once_and_not_of_more_of_its_data(
    root: Path, recorded: StudyProject, run: StudyFolder, params: Params
) -> None:
    runner = Runner(root, recorded, study_named("rooms", params))
    files = [file for arm in run.record().arms for file in arm.files.values()]

    assert len(set(files)) == len(files) == len(list((run.folder / "pieces").iterdir()))
    assert runner.run(params) == list(pieces(run).values())


def test_each_owner_is_judged_with_the_norms_that_it_kept_and_others_with_the_global_model(
    run: StudyFolder, recorded: StudyProject, params: Params, tmp_path: Path
) -> None:
    arm = arm_named(study_named("rooms", params).arms, "federated:own-norms")
    changed = arm.params(params).model_copy(update={"seed": 1})
    federate(recorded, changed, tmp_path / "run").save(tmp_path / "model")
    trained = Trained.load(tmp_path / "model")
    assert trained is not None and set(trained.own) == set(OWNERS)

    warm, project = recorded.policy(changed), recorded.with_newcomers()
    loaded, scenes, found = warm.fitted(trained.stats), range(0), {}
    for site in (*OWNERS, "purple"):
        warm.show(site, trained.at(site))
        found |= judge(project, loaded, params, scenes, [project.manifest(site)])
    warm.show("global", trained.tensors)
    shared = judge(project, loaded, params, scenes, [project.manifest(site) for site in OWNERS])

    piece = pieces(run)["federated:own-norms"]
    for site in OWNERS:
        assert piece.tasks[site].held_out_loss == found[site].held_out_loss != shared[site].held_out_loss
    assert piece.tasks["purple"].held_out_loss == found["purple"].held_out_loss


def with_successes(folder: StudyFolder, rates: dict[str, float]) -> StudyResult:
    """The result as it would be if arms had succeeded on so many of 40 scenes, the same ones first."""
    result, arms = StudyResult.read(folder), {}
    for name, found in result.arms.items():
        share = rates.get(name, rates.get(name.partition(":")[0], 0.0))
        outcomes = {200_000 + n: n < share * 40 for n in range(40)}
        changed = {
            seed: piece.model_copy(
                update={"tasks": {t: r.model_copy(update={"outcomes": outcomes}) for t, r in piece.tasks.items()}}
            )
            for seed, piece in found.pieces.items()
        }
        arms[name] = replace(found, pieces=changed)
    return replace(result, arms=arms, closed_loop=True)


def test_alone_counts_each_owner_at_home(run: StudyFolder) -> None:
    result = with_successes(run, {"alone:red": 0.5, "alone:disc": 0.1, "federated": 0.6})

    every = ways(result)
    rate = result.rate(every["alone"], ("red", "disc"))
    assert list(every) == ["base", "alone", "pooled:steps", "pooled:samples", "federated", "federated:own-norms"]
    assert rate is not None and rate.value == pytest.approx(0.3)
    assert [row[0] for row in owners_table(result)[1]] == ["red", "disc", "all"]
    gaps = {(row[0], row[1]): row[2] for row in gaps_table(result)[1]}
    assert gaps["alone", "all"].startswith("+30.0") and gaps["alone", "disc"].startswith("+50.0")
    assert not [way for way, _ in gaps if way == "federated"]


def test_aims_with_intervals(run: StudyFolder) -> None:
    late = {arm_of("purple", 1, True): 0.6, arm_of("purple", 4, False): 0.2, arm_of("red-too", 4, False): 0.6}
    result = with_successes(run, {"pooled": 0.55, "federated": 0.6, "alone": 0.3, **late})

    within, better, purple, red = rooms_verdicts(result)

    assert within.startswith("**Reached.** Federated is at most 10 points below all data in one place (pooled:")
    assert better.startswith("**Reached.** Federated is better than each owner alone") and "+30.0 points (" in better
    assert purple.startswith("**Reached.** purple (new task, new room): 1 own episodes from the global model")
    assert red.startswith("**Not reached.** red-too (known task, new room)") and "at least \N{MINUS SIGN}" in red


def test_a_newcomers_curve_begins_with_none_of_its_episodes(run: StudyFolder) -> None:
    result = with_successes(run, {"federated": 0.4, "base": 0.1, arm_of("purple", 2, True): 0.7})

    found = dict(curve(result, "purple", True))

    assert newcomers(result) == {"purple": [1, 2, 4], "red-too": [1, 2, 4]}
    assert [found[own].value for own in (0, 2)] == [0.4, pytest.approx(0.7)]
    first = newcomers_table(result)[1][0]
    assert first[:2] == ["purple (new task, new room)", "0"] and first[2].startswith("40%")


def test_the_page_has_its_section(root: Path, run: StudyFolder) -> None:
    written = write_page(root)

    page = written[-1].read_text()
    plots = {path.name for path in written if path.suffix == ".svg"}
    assert plots == {"rooms-rates.svg", "rooms-purple.svg", "rooms-red-too.svg"}
    assert "## Owners who differ" in page and "### Who joins late" in page and "zk0 study rooms" in page
