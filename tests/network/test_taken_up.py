"""Which run is taken up again: one that was cut off; none that said itself why it ended, or that a person stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from zk0.network.server.resume import PREFIX, is_interrupted, resumes
from zk0.network.server.services import Run
from zk0.network.server.wanted import INTERRUPTED, Wanted, forget_wanted, given_up, sites_were_away, wanted_run
from zk0.records.journal import Journal

WANTED = Wanted(7, ("client:app", "server:app"), {"wait_s": 60.0})


def ended(outcome: str, details: str = "") -> Run:
    return Run(7, "finished", outcome, details, "2026-11-29T00:00:00")


@pytest.mark.parametrize(
    ("run", "interrupted"),
    [
        (ended("failed", "No heartbeat received from the task"), True),  # ServerApp or its SuperLink was killed
        (ended("failed", "Task failed with unknown error."), True),  # its SuperExec was
        (ended("failed", f"{PREFIX}{INTERRUPTED}the gateway was started anew"), True),
        (None, True),  # the SuperLink has a new database
        (ended("failed", f"{PREFIX}round 2: 1 of 2 sites trained well"), False),
        (ended("failed", f"{PREFIX}kitchen: {INTERRUPTED}it says"), False),  # a site's words
        (ended("stopped"), False),  # by a person
        (ended("completed"), False),
    ],
)
def test_only_what_was_cut_off_is_taken_up_again(run: Run | None, interrupted: bool) -> None:
    assert is_interrupted(run, WANTED) is interrupted


def test_one_that_was_stopped_for_the_services_sake_is_too() -> None:
    assert is_interrupted(ended("stopped"), Wanted(7, WANTED.apps, {}, stopped=True))


def test_what_is_wanted_is_remembered(tmp_path: Path) -> None:
    assert wanted_run(tmp_path) is None and not given_up(tmp_path)

    WANTED.write(tmp_path)
    assert wanted_run(tmp_path) == WANTED and not given_up(tmp_path)

    for damaged in ('{"number": ', "[]", "{}", '{"apps": ["a", "b"], "strange": 1}', '{"apps": 1}'):
        (tmp_path / ".run/superlink/wanted.json").write_text(damaged)
        assert wanted_run(tmp_path) is None
    forget_wanted(tmp_path)
    forget_wanted(tmp_path)


def test_a_person_may_want_to_do_it_alone(tmp_path: Path) -> None:
    assert resumes(tmp_path)
    (tmp_path / "deployment.yaml").write_text(yaml.safe_dump({"federation": "arms"}))
    assert resumes(tmp_path)
    (tmp_path / "deployment.yaml").write_text(yaml.safe_dump({"resume": False}))
    assert not resumes(tmp_path)


def test_a_round_that_lacks_only_sites_that_died_is_told_from_others(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "results/federation/events.jsonl")
    assert not sites_were_away(tmp_path)
    journal.say("round-start", "round 1 of 2", round=1)
    journal.say("site-left-out", "lab is left out: its update is not finite", round=1, site="lab")
    journal.say("round-start", "round 2 of 2", round=2)
    assert not sites_were_away(tmp_path)

    journal.say("site-left-out", "lab is left out: the site failed: its node is away", round=2, site="lab")
    assert sites_were_away(tmp_path)
    words = "kitchen is left out: the site failed: kitchen says: its node is away"
    journal.say("site-left-out", words, round=2, site="kitchen")
    assert not sites_were_away(tmp_path)
