"""One process at a time in a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from zk0.alone import alone
from zk0.errors import StageError

_HOLDS = """
import sys
from pathlib import Path
from zk0.alone import alone
with alone(Path(sys.argv[1]), "zk0 federate"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_told_who_is_there_until_the_first_dies(tmp_path: Path) -> None:
    lock = tmp_path / ".run" / "stage.lock"
    first = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"

    told = rf"`zk0 evaluate` is refused: `zk0 federate` \(process {first.pid}, since 2"
    with pytest.raises(StageError, match=told), alone(lock, "zk0 evaluate"):
        pass

    first.kill()
    first.communicate()
    with alone(lock, "zk0 evaluate"):
        assert "zk0 evaluate" in lock.read_text()
    with alone(lock, "zk0 prepare"):
        assert "zk0 evaluate" not in lock.read_text()


def test_a_holder_that_has_not_said_who_it_is(tmp_path: Path) -> None:
    lock = tmp_path / "stage.lock"
    with alone(lock, "zk0 federate"):
        lock.write_text("")
        with pytest.raises(StageError, match="another process is at work"), alone(lock, "zk0 federate"):
            pass
