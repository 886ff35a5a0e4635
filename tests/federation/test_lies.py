"""One site of four lies, each time in another way, and it costs the others nothing."""

from __future__ import annotations

import re

import pytest
from lies import LIES
from lying_federation import LIAR, LONGEST_REASON, LyingFederation, Outcome

from zk0.federation import protocol


def fit_to_be_shown(text: str) -> bool:
    """Short, in one line, and nothing that steers a terminal."""
    return len(text) <= LONGEST_REASON and text.isprintable()


def check_words(found: Outcome) -> None:
    """Whatever a site says, files and terminal are the server's."""
    for event in found.events:
        assert event["message"].isprintable() and len(event["message"]) < 2 * LONGEST_REASON
    assert all(line.isprintable() for line in found.shown.split("\n")), found.shown
    assert sum(len(str(event)) for event in found.events) < 100_000


@pytest.mark.parametrize("name", LIES)
def test_a_lie_costs_the_others_nothing(lying: LyingFederation, name: str) -> None:
    lie, honest = LIES[name], lying.honest

    found = lying.run(lie)

    check_words(found)
    assert found.peak_bytes < 1.5 * honest.peak_bytes
    if lie.reason is None:
        assert found.reasons() == {} and found.digests == honest.digests
        return
    assert found.reasons().keys() == {LIAR}
    first, *later = found.reasons()[LIAR]
    assert re.search(lie.reason, first) and fit_to_be_shown(first)
    assert all("its node is away" in reason for reason in later)
    away = lying.without(lie.kind, lie.round)
    assert found.digests == away.digests and found.state.digest == away.state.digest
    others = [{**row, "left_out": {}} for row in found.rows]
    assert [{**row["sites"], LIAR: None} for row in others] == [{**row["sites"], LIAR: None} for row in away.rows]
    assert found.report["stats"] == away.report["stats"] and found.report["limits"] == away.report["limits"]


def test_the_table_has_lies_of_every_kind() -> None:
    assert len(LIES) > 200 and {lie.kind for lie in LIES.values()} == {
        protocol.SUMMARY, protocol.STATISTICS, protocol.TRAIN, protocol.EVALUATE,
    }  # fmt: skip
