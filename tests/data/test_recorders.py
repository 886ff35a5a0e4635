"""Recordings made side by side: their processes are gone with the one that wanted them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

_RECORD = """
import sys
from pathlib import Path
from zk0.data.recorders import record_all
from zk0.params import load_params, with_changes
from zk0.sources import Source
if __name__ == "__main__":
    params = with_changes(load_params(Path("params.yaml")), {"data.episodes": 500, "threads": 1})
    record_all(Path(sys.argv[1]), params, {"cubes": Source.parse("sim:push-red-cube-left")})
"""


def test_a_killed_recorder_leaves_no_process(tmp_path: Path) -> None:
    """What it left would go on writing, and the next run writes to the same place."""
    script = tmp_path / "record.py"
    script.write_text(_RECORD)
    with subprocess.Popen([sys.executable, str(script), str(tmp_path / "recordings")]) as parent:
        while not (tmp_path / "recordings").exists():  # a process has begun to record
            assert parent.poll() is None
            time.sleep(0.1)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert children
        parent.send_signal(signal.SIGKILL)

    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
