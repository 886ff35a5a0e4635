"""Tables arranged from records, on records small enough to check by eye."""

from __future__ import annotations

from zk0.records.results import Pair, Safety
from zk0.records.run import Round
from zk0.reporting import curves, view


def safety(base: list[tuple[str, str | None]], trained: list[tuple[str, str | None]]) -> Pair[Safety]:
    """(name, joint) of each model's checks."""

    def checks(pairs: list[tuple[str, str | None]]) -> dict[str, object]:
        return {"passed": True, "checks": [{"name": name, "joint": joint, "passed": True} for name, joint in pairs]}

    return Pair[Safety].model_validate({"base": checks(base), "global": checks(trained)})


def test_a_check_is_one_row_though_another_joint_did_worst() -> None:
    (row,) = view.safety_rows(safety([("ranges", "gripper")], [("ranges", "elbow_flex")]))

    assert row.base and row.trained
    assert (row.base.joint, row.trained.joint) == ("gripper", "elbow_flex")


def test_checks_of_the_same_name_are_told_apart_by_joint() -> None:
    both: list[tuple[str, str | None]] = [("ranges", "gripper"), ("ranges", "elbow_flex")]

    rows = view.safety_rows(safety(both, both[:1]))

    assert [(row.base is not None, row.trained is not None) for row in rows] == [(True, True), (True, False)]


def test_bytes_and_seconds_add_up_over_rounds_a_site_missed() -> None:
    rounds = [
        Round.model_validate({"round": 0, "held_out_loss": 1.0, "sites": {"a": {"evaluate_s": 1}}}),
        Round.model_validate(
            {"round": 1, "held_out_loss": 1.0, "sites": {"a": {"bytes_up": 2, "bytes_down": 3, "train_s": 5}}}
        ),
        Round.model_validate(
            {"round": 2, "held_out_loss": 1.0, "sites": {"b": {"bytes_up": 7}}, "left_out": {"a": "timed out"}}
        ),
    ]

    assert view.site_bytes(rounds) == {"a": (2, 3), "b": (7, 0)}
    assert view.site_seconds(rounds) == {"a": (5, 1), "b": (0, 0)}
    assert view.left_out(rounds) == [(2, "a", "timed out")]
    loss = {trace.name: trace.y for trace in curves.train_loss(rounds).data}
    assert loss["b"] == (None, None)


def test_params_keep_their_paths() -> None:
    params = {"seed": 1, "data": {"sites": {"red": "sim:x"}, "unseen": {}}, "threads": 2}

    assert view.params_sections(params) == [
        ("general", [("seed", "1"), ("threads", "2")]),
        ("data", [("data.sites.red", "sim:x"), ("data.unseen", "none")]),
    ]


def test_many_sites_leave_the_legend() -> None:
    sites = {f"site-{index}": {"train_loss": 1.0} for index in range(curves.NAMED_SITES + 1)}

    figure = curves.train_loss(
        [Round.model_validate({"round": 1, "train_loss": 1.0, "held_out_loss": 1.0, "sites": sites})]
    )

    assert [trace.name for trace in figure.data if trace.showlegend is not False] == ["mean"]
