"""The verdict's words, on scores small enough to judge by eye."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from zk0.evaluation.safety import STEP_MULTIPLES, Motion, safety_report
from zk0.params.evaluation import EvaluationParams
from zk0.records.results import Evaluation
from zk0.reporting.changes import Paired, rate_of
from zk0.reporting.verdict import judge, what_next


def evaluation(
    errors: Mapping[str, tuple[float | None, float | None]],
    seen: tuple[int, int] = (0, 0),
    unseen: tuple[int, int] | None = None,
    rollouts: int = 20,
    safe: bool = True,
) -> Evaluation:
    """Sites' (base, global) action errors, and (base, global) successes per task."""

    def task(role: str, errors: tuple[float | None, float | None], successes: tuple[int, int]) -> dict[str, Any]:
        scores = [
            {"held_out_loss": error, "action_error_deg": error, "rollouts": rollouts, "successes": wins}
            for error, wins in zip(errors, successes, strict=True)
        ]
        return {"role": role, "base": scores[0], "global": scores[1]}

    tasks = {name: task("site", pair, seen) for name, pair in errors.items()}
    if unseen is not None:
        tasks["unseen"] = task("unseen", (9.0, 9.0), unseen)
    checks = [{"name": "joint speed", "passed": safe}]
    return Evaluation.model_validate(
        {
            "models": {"base": {"digest": "b"}, "global": {"digest": "g", "round": 3}},
            "tasks": tasks,
            "overall": {"base": {}, "global": {}},
            "safety": {"base": {"passed": True}, "global": {"passed": safe, "checks": checks}},
        }
    )


def test_better() -> None:
    verdict = judge(evaluation({"a": (8.0, 5.0), "b": (6.0, 5.0)}, seen=(2, 18)))

    assert verdict.level == "better"
    assert verdict.headline == (
        "Better than the base on 2 of 2 sites by action error, and more successful on the sites' tasks"
    )
    assert verdict.sentences[0] == (
        "On held-out recordings the global model's action error is lower than the base's on 2 of 2 sites; "
        "the mean over sites falls from 7.00° to 5.00° (−28.6%)."
    )
    assert verdict.sentences[1].startswith("On the sites' own tasks it succeeds in 36 of 40 rollouts (90.0%, ")
    assert verdict.sentences[1].endswith("the intervals do not overlap.")


def test_every_kind_of_check_that_fails_has_its_way_on() -> None:
    """By the names of the checks that are really made."""
    every, most = np.full(len(STEP_MULTIPLES), 10), np.full(6, 10)
    arm = Motion(steps=10, beyond=every, cut=most, halved=most, outside=most.astype(float), jerk=9.0)
    found = safety_report({"held-out": arm, "rollouts": arm}, EvaluationParams())

    assert not any(check.passed for check in found.checks) and len(found.checks) == 8
    assert len(what_next(found)) == 3 and all(text.endswith(".") for text in what_next(found))
    assert what_next(found.model_copy(update={"checks": ()})) == []


def test_worse() -> None:
    verdict = judge(evaluation({"a": (5.0, 8.0), "b": (5.0, 6.0)}, seen=(18, 2), safe=False))

    assert verdict.level == "worse"
    assert verdict.headline == (
        "Better than the base on 0 of 2 sites by action error, and less successful on the sites' tasks; "
        "it fails the safety check"
    )
    assert "rises from 5.00° to 7.00° (+40.0%)" in verdict.sentences[0]
    assert verdict.sentences[-1] == "It fails the safety check: joint speed. Do not run it on a real arm."


def test_better_on_some_sites_is_mixed_whatever_the_mean() -> None:
    verdict = judge(evaluation({"a": (8.0, 2.0), "b": (6.0, 6.1), "c": (6.0, 6.0)}))

    assert verdict.level == "mixed"
    assert verdict.headline.startswith("Better than the base on 1 of 3 sites")


def test_overlapping_intervals_are_said_to_overlap() -> None:
    verdict = judge(evaluation({"a": (8.0, 5.0)}, seen=(8, 11)))

    assert verdict.seen.delta == pytest.approx(0.15)
    assert verdict.seen.direction == 0
    assert verdict.headline.endswith("on 1 of 1 site by action error, with success not clearly different")
    assert "overlap, so they do not tell the models apart" in verdict.sentences[1]


def test_success_against_error_is_mixed() -> None:
    verdict = judge(evaluation({"a": (8.0, 5.0)}, seen=(18, 2)))

    assert verdict.level == "mixed"
    assert ", but less successful" in verdict.headline


def test_forgetting_is_mixed_and_in_the_headline() -> None:
    verdict = judge(evaluation({"a": (8.0, 5.0)}, seen=(2, 18), unseen=(18, 2)))

    assert verdict.level == "mixed"
    assert verdict.headline.endswith("; less successful on unseen tasks")


def test_an_unsafe_model_is_not_simply_better() -> None:
    verdict = judge(evaluation({"a": (8.0, 5.0)}, seen=(2, 18), safe=False))

    assert verdict.level == "mixed"
    assert verdict.headline.endswith("; it fails the safety check")


def test_equal_models_are_not_decided() -> None:
    verdict = judge(evaluation({"a": (8.0, 8.0)}, seen=(5, 5)))

    assert verdict.level == "unknown"
    assert verdict.sentences[0].endswith("the mean over sites stays at 8.00°.")


def test_choosing_the_round_on_the_same_recordings_is_said() -> None:
    scores = evaluation({"a": (8.0, 5.0)})

    chosen, not_chosen = (" ".join(judge(scores, best_round).caveats) for best_round in (3, 2))

    assert "chosen by its loss on the same held-out recordings" in chosen
    assert "chosen" not in not_chosen


def test_nothing_measured() -> None:
    verdict = judge(evaluation({"a": (None, 5.0)}, rollouts=0))

    assert verdict.level == "unknown"
    assert verdict.headline == "Action error not measured, success not measured"


@pytest.mark.parametrize(
    ("successes", "rollouts", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (61, 80, 0.6586, 0.8426)],
)
def test_rates_carry_the_tabulated_interval(successes: int, rollouts: int, low: float, high: float) -> None:
    rate = rate_of(successes, rollouts)

    assert rate is not None
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=5e-4)
    assert rate_of(0, 0) is None


def test_scenes_are_compared_in_pairs_where_their_outcomes_are_known() -> None:
    scores = evaluation({"a": (8.0, 5.0)}, seen=(1, 4), rollouts=5)
    task = scores.tasks["a"]
    base = task.base.model_copy(update={"outcomes": {"1": True, "2": False, "3": False, "4": False, "9": True}})
    trained = task.trained.model_copy(update={"outcomes": {"1": True, "2": True, "3": True, "4": True}})
    known = scores.model_copy(update={"tasks": {"a": task.model_copy(update={"base": base, "trained": trained})}})

    sentence = judge(known).sentences[1]

    # Three scenes differ, all in one direction: two-sided p is 2 * (1/2)**3.
    assert "in 4 shared scenes, only the global model succeeds in 3 and only the base in 0" in sentence
    assert sentence.endswith("(exact sign test, p = 0.25).")
    assert judge(scores).seen.paired is None
    assert Paired(scenes=4, only_base=0, only_trained=0).p_value == 1.0
