"""Rounds are followed by what is said of them, in whatever order it comes."""

from __future__ import annotations

import pytest

from tasks.rounds import Rounds
from zk0.errors import StageError
from zk0.records.run import Event
from zk0.workspaces.training import ROUND_STEPS


def said(*events: tuple[str, int | None]) -> Rounds:
    return Rounds(iter(Event(event=name, round=number, message=f"{name} {number}") for name, number in events))


def test_a_round_that_is_saved_while_the_next_one_runs_hides_nothing_of_it() -> None:
    of_a_round = [step.event for step in ROUND_STEPS]
    first, second = [(name, 1) for name in of_a_round], [(name, 2) for name in of_a_round]
    begun = ("round-start", 2), second[0], second[1]
    rounds = said(("round-start", 1), *first[:-1], *begun, first[-1], *second[2:], ("done", None))

    followed = []
    while (number := rounds.next()) is not None:
        followed += [(rounds.wait(step, number).event, number) for step in ROUND_STEPS]

    assert followed == [*first, *second]


def test_what_ends_within_a_round_says_in_which() -> None:
    rounds = said(("round-start", 3), ("local-training", 3))

    assert rounds.next() == 3
    rounds.wait(ROUND_STEPS[0], 3)
    with pytest.raises(StageError, match="parameter extraction: it ended before round 3 was over"):
        rounds.wait(ROUND_STEPS[1], 3)
