"""The gate: what lets a challenger pass, and every reason against it."""

from __future__ import annotations

import doctest
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest

from zk0.evaluation.scores import Judged, Scores
from zk0.params import PromotionParams
from zk0.tracking import promotion
from zk0.tracking.gate import decide

PARAMS = PromotionParams(site_margin=0.1)
SCENES = 100


def model(label: str, safe: bool = True, conditions: str = "same", **shares: float) -> Scores:
    """Succeeds in the first share of 100 scenes of each task; the one called ``unseen`` is no site's."""
    tasks = {task: {at: float(at < share * SCENES) for at in range(SCENES)} for task, share in shares.items()}
    draws = np.random.default_rng(1)
    errors = {task: {at: 5 - 2 * share + draws.normal(0, 0.1) for at in range(10)} for task, share in shares.items()}
    return judged(label, tasks, errors, safe, conditions)


def judged(
    label: str,
    successes: Mapping[str, dict[int, float]],
    errors: Mapping[str, dict[int, float]] = MappingProxyType({}),
    safe: bool = True,
    conditions: str = "same",
) -> Scores:
    """What a model did on every scene and held-out episode of its tasks."""
    return Scores(
        label,
        label,
        safe,
        () if safe else ("joint speed, rollouts",),
        {task: "unseen" if task == "unseen" else "site" for task in successes},
        {
            "success_rate": {task: Judged(values, conditions) for task, values in successes.items()},
            "action_error_deg": {task: Judged(values, conditions) for task, values in errors.items()},
        },
    )


def test_words_in_the_docs() -> None:
    assert doctest.testmod(promotion).failed == 0


def test_safe_better_and_nowhere_worse_passes() -> None:
    found = decide(model("version 2", red=0.8, blue=0.6), model("version 1", red=0.6, blue=0.6), PARAMS)

    assert (found.passed, found.reasons, found.against) == (True, (), "version 1")
    assert found.comparison is not None and found.comparison.overall["site"].value == pytest.approx(0.1)


def test_unsafe_is_refused_unless_params_say_so() -> None:
    challenger, champion = model("version 2", safe=False, red=0.9), model("version 1", red=0.5)

    assert decide(challenger, champion, PARAMS).reasons == ("the safety check failed: joint speed, rollouts",)
    assert decide(challenger, champion, PromotionParams(require_safe=False)).passed


def test_no_better_is_refused_with_the_numbers() -> None:
    found = decide(model("version 2", red=0.61, blue=0.6), model("version 1", red=0.6, blue=0.6), PARAMS)

    (reason,) = found.reasons
    assert reason.startswith("not shown to be better than version 1 on the sites' tasks: gain in success_rate +0.5")
    assert "at 95% confidence (p = " in reason


def test_worse_on_one_site_is_refused_however_good_the_rest() -> None:
    found = decide(model("version 2", red=1.0, blue=0.5), model("version 1", red=0.2, blue=0.65), PARAMS)

    (reason,) = found.reasons
    assert reason.startswith("site blue loses more than promotion.site_margin 10.0 points: gain -15.0 points")
    assert "on 100 scenes" in reason


@pytest.mark.parametrize(
    ("gains", "passing"),
    [((0, 0, 0, 0, 0, 0.2, 0.2), 0.91), ((0, 0, 0, 0, -0.2, 0.3, 0.3), 0.03), ((0, 0, 0, 0, 0, 0, 0), 0.04)],
)
def test_how_many_pass(gains: tuple[float, ...], passing: float) -> None:
    """The figures of docs/models.md; every other scene decides for both models alike."""
    draws, passed = np.random.default_rng(1), 0
    for _ in range(300):
        before, after = {}, {}
        for site, (rate, gain) in enumerate(zip(np.arange(0.9, 0.2, -0.1), gains, strict=True)):
            luck = draws.random(SCENES)
            again = np.where(draws.random(SCENES) < 0.5, luck, draws.random(SCENES))
            before[f"site {site}"] = dict(enumerate((luck < rate).astype(float)))
            after[f"site {site}"] = dict(enumerate((again < rate + gain).astype(float)))
        passed += decide(judged("version 2", after), judged("version 1", before), PARAMS).passed

    assert passed / 300 == pytest.approx(passing, abs=0.005)


def test_what_was_forgotten_of_unseen_tasks_is_refused() -> None:
    found = decide(model("version 2", red=0.8, unseen=0.4), model("version 1", red=0.5, unseen=0.6), PARAMS)

    (reason,) = found.reasons
    assert reason.startswith("worse than version 1 on the unseen tasks: gain in success_rate -20.0 points, at most -")


@pytest.mark.parametrize("unseen", [0.59, 0.6, 0.9])
def test_unseen_tasks_need_not_gain(unseen: float) -> None:
    """Nobody trains on them; that one scene of a hundred is lost does not show that they are worse."""
    challenger = model("version 2", red=0.8, unseen=unseen)

    assert decide(challenger, model("version 1", red=0.5, unseen=0.6), PARAMS).passed


def test_errors_decide_where_there_is_no_simulator() -> None:
    params = PromotionParams(metric="action_error_deg", site_margin=0.5)

    assert decide(model("version 2", red=0.9), model("version 1", red=0.5), params).passed
    (better, worse) = decide(model("version 2", red=0.2), model("version 1", red=0.5), params).reasons
    assert "gain in action_error_deg -0.60 degrees" in better
    assert worse.startswith("site red loses more than promotion.site_margin 0.50 degrees")


def test_what_cannot_be_compared_is_refused() -> None:
    other = decide(model("version 2", red=0.9), model("version 1", conditions="other", red=0.5), PARAMS)
    assert not other.passed and other.comparison is None
    assert "version 2 met same; version 1 met other" in other.reasons[0]

    new_site = decide(model("version 2", red=0.9, blue=0.9), model("version 1", red=0.5), PARAMS)
    assert new_site.reasons == ("site blue cannot be compared: version 1 was not judged on it",)

    only_unseen = decide(model("version 2", unseen=0.9), model("version 1", unseen=0.5), PARAMS)
    assert only_unseen.reasons == ("no site's task could be compared",)


def test_the_same_model_is_no_challenger() -> None:
    found = decide(model("version 1", red=0.9), model("version 1", red=0.9), PARAMS)

    assert found.reasons[0] == "it is the same model as version 1"


def test_every_reason_is_given() -> None:
    found = decide(model("version 2", safe=False, red=0.3, blue=0.3), model("version 1", red=0.6, blue=0.6), PARAMS)

    assert [reason.split(" ")[0] for reason in found.reasons] == ["the", "not", "site", "site"]
