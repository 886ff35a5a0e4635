"""How counted work is told where no bar can move."""

from __future__ import annotations

import pytest

from zk0.console import PROGRESS, progress_bar


def test_counted_work_is_lines_of_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as bar:
        assert list(bar.track(range(3), description="judging [a]")) == [0, 1, 2]
        line = bar.add_task("recording", total=2)
        bar.advance(line, 2)

    said = capsys.readouterr().out.splitlines()

    # What comes in the same two seconds is not told, but for the end.
    assert said == ["judging [a]: 0 of 3", "judging [a]: 3 of 3", "recording: 0 of 2", "recording: 2 of 2"]
    found = PROGRESS.fullmatch(said[1])
    assert found and found.groupdict() == {"what": "judging [a]", "done": "3", "total": "3"}
