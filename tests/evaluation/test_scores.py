"""Two evaluations, compared on what they share."""

from __future__ import annotations

from typing import Any

import pytest

from zk0.evaluation.scores import IncomparableError, Scores, compare
from zk0.records.results import Evaluation

SEEDS = range(100_000, 100_020)


def evaluation(wins: dict[str, set[int]], errors: list[float] | None = None, **changed: Any) -> dict[str, Any]:
    """Of one model in both places: 20 rollouts a task, of which those of ``wins`` succeed."""
    judged = {
        task: {
            "outcomes": {str(seed): seed - 100_000 in won for seed in SEEDS},
            **({"episode_errors_deg": {str(at): error for at, error in enumerate(errors)}} if errors else {}),
        }
        for task, won in wins.items()
    }
    safety = {"passed": False, "checks": [{"name": "speed", "passed": False}]}
    return {
        "models": {"global": {"digest": "g"}, "base": {"digest": "b"}},
        "settings": {"max_steps": 30},
        "overall": {"global": {}, "base": {}},
        "safety": {"global": safety, "base": safety},
        "tasks": {
            task: {
                "role": "unseen" if task == "purple" else "site",
                "source": f"sim:{task}",
                "digest": f"{task}-digest",
                "global": content,
                "base": content,
            }
            for task, content in judged.items()
        },
    } | changed


def read(content: dict[str, Any], label: str) -> Scores:
    """Of the global model in what evaluation.json holds."""
    return Scores.of(Evaluation.model_validate(content), "global", label)


def scores(wins: dict[str, set[int]], label: str = "a", **changed: Any) -> Scores:
    return read(evaluation(wins, **changed), label)


def test_success_by_hand() -> None:
    """a wins scenes 0 to 9 of red and 0 to 4 of blue, b wins 0 to 4 of both: 25 points over both tasks."""
    a = scores({"red": set(range(10)), "blue": set(range(5)), "purple": {1}})
    b = scores({"red": set(range(5)), "blue": set(range(5)), "purple": {1}}, "b")

    found = compare(a, b, "success_rate")

    assert {task: (one.a, one.b, one.scenes) for task, one in found.tasks.items()} == {
        "red": (0.5, 0.25, 20),
        "blue": (0.25, 0.25, 20),
        "purple": (0.05, 0.05, 20),
    }
    assert found.overall["site"].value == pytest.approx(0.125)
    assert found.overall["unseen"].value == 0.0
    assert found.tasks["red"].gain.value == 0.25 and found.tasks["red"].gain.p_better < 0.05
    assert found.left_out == {}


def test_smaller_error_is_a_gain() -> None:
    a = scores({"red": {1}, "blue": {1}}, errors=[2.0, 3.0, 2.5])
    b = scores({"red": {1}, "blue": {1}}, "b", errors=[4.0, 5.5, 4.0])

    found = compare(a, b, "action_error_deg")

    assert found.overall["site"].value == pytest.approx(2.0)
    assert found.overall["site"].p_better < 0.01
    assert (found.tasks["red"].a, found.tasks["red"].b, found.tasks["red"].scenes) == (2.5, 4.5, 3)


def test_only_shared_scenes_count() -> None:
    late = evaluation({"red": set(range(20))})
    for model in ("global", "base"):
        late["tasks"]["red"][model]["outcomes"] = {str(seed): True for seed in range(100_010, 100_030)}

    found = compare(read(late, "a"), scores({"red": set(range(15))}, "b"), "success_rate")

    assert (found.tasks["red"].scenes, found.tasks["red"].a, found.tasks["red"].b) == (10, 1.0, 0.5)


def test_tasks_that_only_one_was_judged_on_are_left_out_with_a_reason() -> None:
    found = compare(scores({"red": {1}, "blue": {1}}), scores({"red": {1}, "green": {1}}, "b"), "success_rate")

    assert list(found.tasks) == ["red"]
    assert found.left_out == {"blue": "b was not judged on it", "green": "a was not judged on it"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"settings": {"max_steps": 40}}, "a met sim:red, max_steps 30; b met sim:red, max_steps 40"),
        ({"tasks": {}}, "red: b was not judged on it"),
    ],
)
def test_scenes_of_other_conditions_are_other_scenes(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(IncomparableError, match=said) as refused:
        compare(scores({"red": {1}}), scores({"red": {1}}, "b", **changed), "success_rate")

    assert "`zk0 compare --anew` judges both again" in str(refused.value)


def test_other_seeds_are_named() -> None:
    final = evaluation({"red": set()})
    final["tasks"]["red"]["global"]["outcomes"] = {"200000": True, "200001": False}

    with pytest.raises(IncomparableError, match="a met scenes 100000 to 100019, b 200000 to 200001: none shared"):
        compare(scores({"red": {1}}), read(final, "b"), "success_rate")


def test_episodes_of_other_recordings_are_other_episodes() -> None:
    grown = evaluation({"red": {1}}, errors=[1.0, 2.0])
    grown["tasks"]["red"]["digest"] = "grown"

    with pytest.raises(IncomparableError, match="a met recordings red-digest; b met recordings grown"):
        compare(
            scores({"red": {1}}, errors=[1.0, 2.0]),
            read(grown, "b"),
            "action_error_deg",
        )


def test_without_errors_by_episode_that_is_said() -> None:
    with pytest.raises(IncomparableError, match="a has no errors by episode on it"):
        compare(scores({"red": {1}}), scores({"red": {1}}, "b"), "action_error_deg")


def test_what_failed_is_kept() -> None:
    found = scores({"red": {1}})

    assert (found.digest, found.safe, found.failed, found.roles) == ("g", False, ("speed",), {"red": "site"})
