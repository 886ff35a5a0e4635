"""MLflow's pages as an operator sees them: served by `zk0 ui`, opened in a real browser."""

from __future__ import annotations

import html
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from browser import CHROMIUM, NONE, page_after_scripts
from network_services import free_port

from zk0.files import write_json
from zk0.params import PromotionParams
from zk0.tracking.project import track
from zk0.tracking.view import COLUMNS

pytestmark = [pytest.mark.release, pytest.mark.skipif(CHROMIUM is None, reason=NONE)]
PARAMS = """
policy: {base: "random:nano"}
data: {sites: {a: "sim:push-red-cube-left"}}
"""


def test_the_runs_table_and_the_charts(tracked: Path, files: Any, spread: Callable[..., list[bool]]) -> None:
    files.next_run(tracked, 2)
    found = files.evaluated(tracked, {task: (spread(0.1), spread(0.5)) for task in ("red-cube", "purple-cylinder")})
    for model in ("base", "global"):  # MLflow shows no column of which no run has a value
        found["overall"][model]["success_rate_unseen"] = 0.5
    write_json(tracked / "results/evaluation.json", found)
    result = track(tracked, "zk0", "zk0-smolvla", promotion=PromotionParams())
    (tracked / "params.yaml").write_text(PARAMS)
    command = [sys.executable, "-m", "zk0", "ui", "--no-browser", "--port", str(free_port())]
    with subprocess.Popen(command, cwd=tracked, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        try:
            page = served.stdout.readline().strip()
            family = psutil.Process(served.pid).children(recursive=True)
            running = " ".join(" ".join(process.cmdline()) for process in family)
            table = html.unescape(page_after_scripts(page, (4000, 900)))
            run = f"{page.partition('/runs')[0]}/runs/{result.run_id}"
            system = page_after_scripts(f"{run}/system-metrics?workflowType=machine_learning")
            charts = page_after_scripts(f"{run}/model-metrics?workflowType=machine_learning")
        finally:
            served.send_signal(signal.SIGINT)
            ended = served.wait(60)

    assert (ended, psutil.wait_procs(family, timeout=10)[1]) == (0, [])
    assert "huey" not in running and "job_runner" not in running
    assert "fedavg-01234567 75%" in table and "Model training" in table
    shown = {int(at): column for at, column in re.findall(r'aria-colindex="(\d+)" col-id="([^"]+)"', table)}
    assert [shown[at] for at in sorted(shown) if shown[at] in COLUMNS] == list(COLUMNS)
    sections = [re.findall(r">([^<>]+)</div><div[^>]*>\((\d+)\)</div>", one) for one in (charts, system)]
    assert sections[0][0] == ("by_round", "4") and sections[1] == [("System metrics", "2")]
