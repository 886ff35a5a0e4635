"""What a run writes: described, read as it was written, and refused where it is not what a stage writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zk0.files import BadFileError, write_json
from zk0.records import base, results, run
from zk0.records.base import Record
from zk0.records.files import (
    EventsAsTheyCome,
    MissingRecordError,
    RecordError,
    append_lines,
    events_so_far,
    read,
    read_rounds,
    require,
    rounds_so_far,
    write_lines,
)
from zk0.records.files import write as write_record
from zk0.records.results import Benchmark, BenchmarkRow, Evaluation, Tracking
from zk0.records.run import Event, Round, Run

KINDS = [
    kind
    for module in (base, results, run)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_figures_say_their_unit(kind: type[Record]) -> None:
    units = {"_s": "seconds", "_bytes": "bytes", "_deg": "degrees"}
    for name, field in kind.model_fields.items():
        for ending, unit in units.items():
            if name.endswith(ending) or (unit == "bytes" and name.startswith("bytes")):
                assert unit in str(field.description).lower(), f"{kind.__name__}.{name}"


def test_a_record_is_written_as_it_was_given(tmp_path: Path) -> None:
    given = {"round": 1, "held_out_loss": 0.5, "sites": {"a": {"examples": 4}}, "of a later version": [1, {"x": None}]}

    assert Round.model_validate(given).content() == given

    write_record(tmp_path, Tracking(run_id="r", model="m", model_version=3))
    assert json.loads((tmp_path / "results/tracking.json").read_text()) == {
        "run_id": "r",
        "model": "m",
        "model_version": 3,
    }
    written = Benchmark(created="2026-01-01T00:00:00+00:00", rows=[BenchmarkRow(name="step", value=0.5, unit="s")])
    write_record(tmp_path, written)
    assert read(tmp_path, Benchmark) == written


def test_everything_that_a_file_lacks_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "results/evaluation.json", {"tasks": {"a": {"role": "owner", "base": {}, "global": {}}}})

    with pytest.raises(
        RecordError, match=r"lacks 'models', 'overall', 'safety'; tasks\.a\.role: .*; run `zk0 evaluate`"
    ):
        read(tmp_path, Evaluation)
    with pytest.raises(MissingRecordError, match=r"run\.json is missing; `zk0 federate` makes it"):
        read(tmp_path, Run)
    with pytest.raises(FileNotFoundError, match=r"(?s)run\.json is missing.*rounds\.jsonl is missing.*`dvc repro`"):
        require(tmp_path, Run, Round, Evaluation)


def test_events_as_they_come_are_read_once_and_again_where_they_were_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventsAsTheyCome(path) as events:
        assert events.more() == []
        path.write_text('{"event": "train", "round": 1}\n[1]\n{"event": "sa')
        assert [one.event for one in events.more()] == ["train"]
        with path.open("a") as stream:
            stream.write('ve", "round": 1}\n\xe4\n')
        assert [one.event for one in events.more()] == ["save"]
        assert events.more() == []
        path.unlink()
        assert events.more() == []
        write_lines(path, [Event(event="train", round=1), Event(event="resume", round=1)])
        assert [one.event for one in events.more()] == ["train", "resume"]
        append_lines(path, [Event(event="done", round=2)])
        assert [one.event for one in events.more()] == ["done"]


def test_of_a_run_in_progress_whole_lines_count(tmp_path: Path) -> None:
    file = tmp_path / "results/federation/rounds.jsonl"
    assert rounds_so_far(tmp_path) == [] and events_so_far(tmp_path / "none.jsonl") == []

    file.parent.mkdir(parents=True)
    file.write_text('{"round": 0, "held_out_loss": 1.0}\n{"round": 1, "held_out_loss": 0.5}\n{"strange": 1}\n{"rou')
    events = tmp_path / "events.jsonl"
    events.write_text('{"time": "t", "event": "save", "round": 1, "site": null, "message": "saved", "loss": 2}\n[1]\n')

    assert [one.round for one in rounds_so_far(tmp_path)] == [0, 1]
    assert [one.content()["loss"] for one in events_so_far(events)] == [2]
    assert isinstance(events_so_far(events)[0], Event)
    with pytest.raises(BadFileError, match=r"rounds\.jsonl, line 4 is not valid JSON.*; run `zk0 federate` again"):
        read_rounds(tmp_path)
