"""What a flow's log and the federation's journal tell, as one view of 80 columns."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console
from tests_support import REPO

from zk0.cli.flow_log import SETTINGS, FlowLog, Work
from zk0.cli.flow_view import FlowView
from zk0.params import load_params, with_changes
from zk0.pipeline.stages import STAGES
from zk0.records.files import EventsAsTheyCome
from zk0.records.journal import Journal

WIDTH = 80


class Flow:
    """A log and a journal, written to as a flow does, and what is shown of them."""

    def __init__(self, folder: Path, **changes: object) -> None:
        self.path, self.journal_path = folder / "demo.log", folder / "events.jsonl"
        self.path.touch()
        self.journal = Journal(self.journal_path)
        self.journal.say("evaluate", "held-out loss 9.0", round=0, held_out_loss=9.0)  # of an earlier run
        params = with_changes(load_params(REPO / "profiles" / "demo.yaml"), changes)
        self.log = FlowLog(self.path, STAGES)
        self.view = FlowView(self.log, params, Path(".run/demo.log"), datetime.now(UTC))
        self.events = EventsAsTheyCome(self.journal_path)

    def write(self, text: str) -> None:
        with self.path.open("a") as stream:
            stream.write(text)

    def say(self, task: str, *lines: str) -> None:
        form = SETTINGS["PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT"]
        told = {"asctime": "07:07:27", "msecs": 4, "levelname": "INFO", "task_name": task}
        self.write("".join(form % {**told, "message": line} + "\n" for line in lines))

    def shown(self) -> list[str]:
        self.log.more()
        self.view.hear(self.events.more())
        out = io.StringIO()
        Console(file=out, width=WIDTH, force_terminal=True, color_system=None, soft_wrap=True).print(self.view)
        lines = [line.rstrip() for line in out.getvalue().splitlines()]
        assert max(map(len, lines)) <= WIDTH
        return lines


@pytest.fixture
def flow(tmp_path: Path) -> Iterator[Flow]:
    made = Flow(tmp_path)
    with made.log, made.events:
        yield made


def test_stages_have_states_and_what_they_said_last(flow: Flow) -> None:
    assert "Prefect starts" in flow.shown()[0]
    flow.write("07:07:26.001 | INFO    | prefect - Starting temporary server on http://127.0.0.1:8999\n")
    flow.say("validate environment", "Running stage 'validate':", "> zk0 validate", "python is well")
    assert flow.shown()[1] == "validate  at work   0:00 python is well"
    flow.say("validate environment", "Finished in state Completed('10 s')")
    flow.say(
        "prepare data", "Stage 'prepare' didn't change, skipping", "Finished in state Unchanged('1 s', type=COMPLETED)"
    )
    flow.say("run federation", "x" * 200, "┃ a table ┃", "recording red: 1 of 3")
    flow.write("07:07:26.001 | INFO    | evalu")  # the rest is still to come

    head, *stages = flow.shown()

    assert head == "zk0 demo  0:00   Prefect's log: .run/demo.log"
    assert stages[:2] == ["validate  completed 0:00", "prepare   unchanged 0:00"]
    assert stages[2].startswith("federate  at work   0:00 xxx") and stages[2].endswith("…")
    assert stages[3].split() == ["recording", "red", stages[3].split()[2], "1", "of", "3"]
    assert [line.split() for line in stages[4:]] == [
        [s, "waiting"] for s in ("evaluate", "benchmark", "report", "track")
    ]
    flow.write("ate | a line\n")
    assert flow.shown()[5] == "evaluate  at work   0:00 a line"


def test_a_federation_is_shown_by_rounds_sites_and_losses(flow: Flow) -> None:
    flow.say("run federation", "Run the federation")
    flow.journal.say("resume", "continuing after round 2", round=2)
    flow.journal.say("round-start", "round 3 of 6, 3 of 4 sites train", round=3)
    flow.journal.say("train", "red-cube trained, loss 0.81", round=3, site="red-cube")
    flow.journal.say("site-left-out", "blue-bar is left out: no reply", round=3, site="blue-bar")
    shown = [line.split() for line in flow.shown()]
    assert shown[3][:3] == ["federate", "at", "work"]
    assert ["red-cube", "trained,", "loss", "0.81"] in shown and shown[5][1:] == ["is", "left", "out:", "no", "reply"]
    rounds, sites = (" ".join(line) for line in shown[6:8])
    assert rounds.startswith("rounds ") and " 2 of 6" in rounds
    assert sites.startswith("sites of this round ") and " 2 of 3 0:00 left" in sites

    flow.journal.say("evaluate", "held-out loss 0.5", round=3, held_out_loss=0.5)
    flow.journal.say("round-start", "round 4 of 6", round=4)
    flow.say("run federation", "Finished in state Completed('45 s')")

    assert flow.shown()[3] == "federate  completed 0:00 held-out loss 0.500"


def test_how_a_flow_ends_is_its_own_words(flow: Flow) -> None:
    form = SETTINGS["PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT"]
    told = {"asctime": "07:07:27", "msecs": 4, "levelname": "INFO"}
    flow.say("track", "error: it went wrong", "Finished in state Failed(\"stage 'track' failed:\\nand so on\")")
    flow.write(form % {**told, "message": "Finished in state Unchanged('nothing was new', type=COMPLETED)"} + "\n")

    flow.log.more()

    assert flow.log.told == "nothing was new"
    failed = flow.log.failed()
    assert failed is not None and (failed.name, failed.lines) == ("track", ["error: it went wrong"])


def test_what_is_left_goes_by_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    work = Work(10, 4, began=now, first=4)  # four were there before
    assert work.left_s() is None
    now = 120.0
    work.reach(6)
    assert work.left_s() == 40.0  # ten seconds each
    now = 130.0
    assert work.left_s() == 30.0
    work.reach(10)
    assert work.left_s() is None
