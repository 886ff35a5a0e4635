"""Pictures of what an operator sees, of the project in this folder: `make screens`, after `make demo`.

MLflow's table of runs, the newest run and its charts, and the first version; Prefect's flow runs, and the newest; the
report, on a desktop and on a phone.
"""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from browser import CHROMIUM, NONE, take_picture
from network_services import free_port

from zk0.operations.start import start_prefect, stop_prefect
from zk0.operations.ui import mlflow_pages
from zk0.params import load_params
from zk0.tracking.lineage import list_runs

IMAGES = Path(__file__).parents[2] / "docs" / "images" / "screens"
DESKTOP, WIDE, PHONE = (1280, 1000), (1900, 700), (390, 1200)


def main() -> None:
    """Take them all."""
    if CHROMIUM is None:
        raise SystemExit(NONE)
    IMAGES.mkdir(parents=True, exist_ok=True)
    root = Path.cwd()
    tracking = load_params().tracking
    with mlflow_pages(root, tracking.experiment, free_port()) as (page, _):
        experiment, mode = page.partition("/runs")[0], "?workflowType=machine_learning"
        newest = list_runs(root, tracking.experiment)[0]["run_id"]
        take("mlflow-runs", page, WIDE)
        take("mlflow-run", f"{experiment}/runs/{newest}{mode}", DESKTOP)
        take("mlflow-charts", f"{experiment}/runs/{newest}/model-metrics{mode}", DESKTOP)
        take("mlflow-version", f"{page.partition('#')[0]}#/models/{tracking.model}/versions/1{mode}", DESKTOP)
    try:
        server = start_prefect(root, free_port())
        take("prefect-runs", f"{server}/runs", DESKTOP)
        take("prefect-run", f"{server}/runs/flow-run/{newest_flow_run(server)}", DESKTOP)
    finally:
        stop_prefect(root)
    report = (root / "results" / "report.html").as_uri()
    take("report", report, DESKTOP)
    take("report-phone", report, PHONE)


def newest_flow_run(server: str) -> str:
    """The id of the newest that completed, by Prefect's interface."""
    wanted = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}, "sort": "START_TIME_DESC", "limit": 1}
    asked = urllib.request.Request(
        f"{server}/api/flow_runs/filter", json.dumps(wanted).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked) as answer:
        return str(json.load(answer)[0]["id"])


def take(name: str, url: str, size: tuple[int, int]) -> None:
    """One picture, below docs/images/screens."""
    file = IMAGES / f"{name}.png"
    take_picture(url, file, size)
    print(file)


if __name__ == "__main__":
    main()
