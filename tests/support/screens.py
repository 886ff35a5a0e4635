"""Pictures of what an operator sees, of the project in this folder: `make screens`, after `make demo`.

MLflow's table of runs, the newest run and its charts, and the first version; the report, on a desktop and on a phone.
"""

from __future__ import annotations

from pathlib import Path

from browser import CHROMIUM, NONE, take_picture
from network_services import free_port

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
    report = (root / "results" / "report.html").as_uri()
    take("report", report, DESKTOP)
    take("report-phone", report, PHONE)


def take(name: str, url: str, size: tuple[int, int]) -> None:
    """One picture, below docs/images/screens."""
    file = IMAGES / f"{name}.png"
    take_picture(url, file, size)
    print(file)


if __name__ == "__main__":
    main()
