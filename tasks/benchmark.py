"""The quick benchmarks beside peers: measure, remember, compare, show."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.commands import stream
from zk0.errors import StageError
from zk0.measuring.history import Regression
from zk0.measuring.rows import Report
from zk0.words import markdown_table


@task(name="measure beside peers", cache_policy=NO_CACHE)
def measure_beside_peers(root: Path, only: tuple[str, ...] = ()) -> None:
    """Run ``python -m benchmarks --quick`` and stream its lines to the log.

    Args:
        root: Project folder.
        only: Some of the benchmarks; all by default.

    Raises:
        StageError: They are not installed, or one of them failed.
    """
    if importlib.util.find_spec("benchmarks") is None:
        raise StageError("the benchmarks are not part of this installation; run from a clone, after `make bench-quick`")
    command = ["-m", "benchmarks", "--quick", *(f"--only={name}" for name in only)]
    stream("the quick benchmarks failed", command, root)


# The tracking database may be busy or, when it is a server, away.
@task(name="compare benchmarks", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[5, 30])
def compare_benchmarks(root: Path) -> list[str]:
    """Remember the last quick benchmarks, put them into MLflow, and tell what is worse than before, in words."""
    from zk0.tracking.benchmarks import compare_with_earlier

    found = compare_with_earlier(root)
    create_markdown_artifact(
        key="benchmark-comparison",
        markdown=comparison_markdown(found.report, found.worse),
        description="Quick benchmarks beside peers and earlier runs",
    )
    logger = get_run_logger()
    for regression in found.worse:
        logger.warning("worse than before: %s", regression)
    logger.info("MLflow experiment %s, %d runs added", found.experiment, len(found.added))
    return [str(regression) for regression in found.worse]


def comparison_markdown(report: Report, worse: list[Regression]) -> str:
    """The rows as a table, what is worse than before marked and named first."""
    marked = {regression.name for regression in worse}
    parts = [f"**{len(worse)} figures are worse than before on this machine:**"] if worse else []
    parts += [f"- {regression}" for regression in worse]
    rows = [
        (
            f"{row.name} (worse)" if row.name in marked else row.name,
            f"{row.ours:.4g}",
            "" if row.peer is None else f"{row.peer:.4g} ({row.peer_name})",
            "" if row.ratio is None else f"{row.ratio:.3g}",
            row.unit,
        )
        for row in report.rows
    ]
    return "\n".join([*parts, "", markdown_table(("what", "ours", "peer", "ratio", "unit"), rows, figures=(1, 2, 3))])
