"""Arms as data, and the studies made of them; nothing heavy is needed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from tests_support import REPO

from zk0.errors import StageError
from zk0.params import Params, ParamsError, load_params, parse_params, with_changes
from zk0.study import arms
from zk0.study.studies import RECIPES, study_named


@pytest.fixture
def demo() -> Params:
    return load_params(REPO / "profiles" / "demo.yaml")


@pytest.fixture
def rooms() -> Params:
    return load_params(REPO / "profiles" / "rooms.yaml")


def test_comparison_has_every_baseline(demo: Params) -> None:
    study = study_named("comparison", demo)

    names = [arm.name for arm in study.arms]
    assert names[:8] == [
        "base",
        *(f"alone:{site}" for site in demo.data.sites),
        "pooled:steps",
        "pooled:samples",
        "federated",
    ]
    assert names[8:] == [f"federated:{name}" for name in demo.study.variants]
    assert study.scenes == range(200_000, 200_100) and study.seeds == (1, 2, 3)


def test_sites_of_a_partition_are_named_as_prepare_names_them(demo: Params) -> None:
    dealt = with_changes(demo, {"data.sites": {"all": "sim:pull-blue-bar"}, "data.partition": {"scheme": "equal"}})

    assert arms.site_names(dealt.data) == ("all-0", "all-1", "all-2", "all-3")


def test_variant_changes_the_params_it_names(demo: Params) -> None:
    arm = arms.federated("int8", {"federation.uplink": "int8"})

    assert arm.params(demo).federation.uplink == "int8"
    assert demo.federation.uplink == "fp32"
    assert arm.about == "federated with federation.uplink = int8"


def test_variant_that_cannot_be_is_refused(demo: Params) -> None:
    with pytest.raises(ParamsError, match=r"proximal_mu 1.0 needs strategy fedprox"):
        arms.federated("x", {"federation.proximal_mu": 1.0}).params(demo)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"federation.uplnk": "int8"}, "arm 'federated:x': unknown key 'federation.uplnk'; did you mean 'uplink'"),
        ({"federation.uplink.deep": 1}, "arm 'federated:x': .*'uplink' holds a value"),
        ({"federation.proximal_mu": 1.0}, "arm 'federated:x': federation: proximal_mu .* needs strategy fedprox"),
    ],
)
def test_variants_are_checked_before_anything_runs(demo: Params, change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ParamsError, match=rule):
        study_named("comparison", with_changes(demo, {"study.variants": {"x": change}}))


def test_arms_that_differ_have_other_keys_and_names_play_no_part() -> None:
    one, two = arms.alone("red"), arms.alone("blue")

    assert one.key() != two.key()
    assert one.key() == arms.Arm("another name", "alone", "another text", site="red").key()
    assert one.slug == "alone-red"


def test_unknown_names_come_with_their_neighbour(demo: Params) -> None:
    with pytest.raises(ValueError, match="did you mean 'federated'"):
        arms.arm_named(study_named("comparison", demo).arms, "fedrated")
    with pytest.raises(ValueError, match="did you mean 'robustness'"):
        study_named("robustnes", demo)


def test_personalised_arms_start_from_the_federation_and_are_judged_at_home(demo: Params) -> None:
    own = [arm for arm in study_named("personalisation", demo).arms if arm.kind == "personalised"]

    assert len(own) == 4
    assert all(arm.starts_from == "federated" and arm.own_task_only for arm in own)


def test_robustness_has_two_sites_a_task_and_strategies_without_leftovers(demo: Params) -> None:
    prox = with_changes(demo, {"federation.strategy": "fedprox", "federation.proximal_mu": 0.1})

    study = study_named("robustness", prox)

    assert len(study.params.data.sites) == 8
    assert study.params.federation.rounds == demo.federation.rounds // 2
    assert study.params.data.sites["red-cube-a"] == study.params.data.sites["red-cube-b"] == "sim:push-red-cube-left"
    assert {arm.attack for arm in study.arms} == {None, "sign-flip", "shuffled-labels"}
    assert all(arm.params(study.params).federation.proximal_mu == 0 for arm in study.arms)


def test_the_choice_is_confirmed_on_seeds_and_scenes_that_nothing_else_uses(demo: Params, rooms: Params) -> None:
    chosen = with_changes(demo, {"study.robust_strategy": "krum"})

    study = study_named("robustness-confirmation", chosen)

    expected = ["honest:fedavg", "honest:krum", "sign-flip:fedavg", "sign-flip:krum"]
    assert [arm.name for arm in study.arms] == [*expected, "shuffled-labels:fedavg", "shuffled-labels:krum"]
    assert study.seeds == demo.study.training_seeds[1:] and study.command == "zk0 study robustness-confirmation"
    first = study_named("robustness", chosen)
    assert study.params == first.params and len(study.scenes) == demo.study.scenes > 0
    asked = {name: rooms if name == "rooms" else chosen for name in RECIPES if name != study.name}
    taken = [study_named(name, params).scenes for name, params in asked.items()]
    assert not any(set(study.scenes) & set(other) for other in taken)


def test_robustness_refuses_what_cannot_be_recorded_twice(demo: Params) -> None:
    with pytest.raises(StageError, match="must be sim: sources"):
        study_named("robustness", with_changes(demo, {"data.sites": {"a": "local:there"}}))


def test_rooms_are_eight_owners_of_fifteen_episodes_and_two_newcomers(rooms: Params) -> None:
    study = study_named("rooms", rooms)

    data = study.params.data
    assert len(data.sites) == 8 and len(data.unseen) == 2
    assert {len(range(data.episodes)) - len(data.leave_out[site]) for site in data.sites} == {15}
    assert len(study.arms) == 1 + 8 + 2 + 1 + len(rooms.study.variants) + 2 * 3 * 2
    assert study_named("rooms", rooms, quick=True).params.data.leave_out == {}


def test_feasibility_uses_development_scenes_one_seed_and_the_comparison_s_recordings(demo: Params) -> None:
    study = study_named("feasibility", demo)

    assert study.params.data == demo.data and study.params.policy == demo.policy  # so what was recorded serves both
    assert study.scenes.start == demo.evaluation.seed and study.seeds == (1,)
    assert len(study.arms) == 11 and {arm.share for arm in study.arms} == {1 / 8, 1 / 4, 1 / 2, 1}
    steps = {arm.params(study.params).training.local_steps * demo.federation.rounds * 4 for arm in study.arms}
    assert steps == {96, 192, 360, 720, 1440}


def test_fewer_seeds_are_told_by_the_command(demo: Params) -> None:
    study = study_named("robustness", demo, seeds=1)

    assert study.seeds == (1,) and study.command == "zk0 study robustness --seeds 1"
    assert study_named("robustness", demo).command == "zk0 study robustness"
    assert study_named("feasibility", demo, quick=True).command == "zk0 study feasibility --quick"


def test_quick_is_small_and_kept_apart(demo: Params) -> None:
    study = study_named("comparison", demo, quick=True)

    assert study.name == "comparison-quick" and study.command == "zk0 study comparison --quick"
    assert len(study.seeds) == 2 and len(study.scenes) == 4
    assert study.params.training.local_steps == 4 and study.params.federation.rounds == 2


@pytest.mark.parametrize(
    ("study", "rule"),
    [
        ({"training_seeds": []}, "at least 1 item"),
        ({"training_seeds": [1, 1]}, "differ from each other"),
        ({"training_seeds": [-1]}, "0 or above"),
        ({"scenes": -1}, "greater than or equal to 0"),
        ({"final_seed": 5}, "greater than or equal to 100000"),
        ({"final_seed": 100_050}, "meets the development scenes 100000 to 100099"),
        ({"personal_steps": 6}, "multiple of 4"),
        ({"robust_strategy": "krumm"}, "'krum' or 'multi-krum'"),
        ({"variants": {"a b": {}}}, "may hold letters, digits"),
        ({"variants": {"x": {"data.fps": 3}}}, "data and evaluation are the same for all"),
        ({"variants": {"x": {"policy.base": "random:nano"}}}, "policy \\(not its base\\)"),
    ],
)
def test_params_refuse(study: dict[str, Any], rule: str) -> None:
    content = {"policy": {"base": "random:nano"}, "data": {"sites": {"a": "sim:pull-blue-bar"}}, "study": study}

    with pytest.raises(ParamsError, match=rule):
        parse_params(content)


def test_the_commands_answer_without_torch() -> None:
    code = (
        "import sys, zk0.cli.app\n"
        "from zk0.study.studies import study_named\n"
        "assert not {'torch', 'lerobot', 'matplotlib'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
