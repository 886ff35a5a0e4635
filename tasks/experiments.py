"""Where a nightly run starts, and how it is kept as a DVC experiment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from zk0.params import load_params


@task(name="find champion", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=5)
def find_champion(root: Path) -> str | None:
    """The champion's checkpoint folder relative to the project, or None while there is none."""
    from zk0.tracking.registry import champion

    folder = champion(root, load_params(root / "params.yaml").tracking.model)
    where = str(folder.relative_to(root)) if folder else None
    get_run_logger().info("starting from the champion in %s" if where else "no champion yet%s", where or "")
    return where


@task(name="save experiment", cache_policy=NO_CACHE)
def save_experiment(root: Path, name: str) -> str | None:
    """Save the workspace as a DVC experiment; None, with a warning, where there is no git commit.

    The name is a tag of the MLflow run, so one leads to the other.
    """
    command = [sys.executable, "-m", "dvc", "exp", "save", "--name", name, "--force"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    logger = get_run_logger()
    if done.returncode:
        logger.warning("the run could not be saved as a DVC experiment: %s", done.stderr.strip())
        return None
    logger.info("saved as DVC experiment %s; `dvc exp apply %s` brings its data and params back", name, name)
    return name
