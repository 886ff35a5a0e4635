"""Where a nightly run starts."""

from __future__ import annotations

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
