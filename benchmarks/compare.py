"""Compare the last quick benchmarks with earlier ones on this machine, remember them, and put them into MLflow."""

from __future__ import annotations

from pathlib import Path

import typer

from zk0 import runtime_env
from zk0.console import console
from zk0.errors import StageError
from zk0.measuring.history import QUICK, read_history, regressions, remember
from zk0.measuring.rows import read_report
from zk0.params import load_params

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main() -> None:
    """Say what has become worse by more than benchmark.margin; exit status 2 if anything has."""
    runtime_env.switch_off()
    root = Path.cwd()
    try:
        params = load_params(root / "params.yaml")
        report = read_report(root / QUICK)
        history = read_history(root)
        worse = regressions(report, history, params.benchmark.margin)
        remember(root, report)
        from zk0.tracking.benchmarks import track_benchmarks

        tracked = track_benchmarks(root, params.tracking.experiment, params.benchmark.margin)
    except (StageError, ValueError) as error:
        console.print(f"error: {error}", style="bold red", markup=False)
        raise typer.Exit(1) from None
    alike = sum(earlier.machine_id == report.machine_id for earlier in history if earlier != report)
    console.print(f"compared with {alike} earlier runs on this machine; MLflow experiment {tracked.experiment}")
    for regression in worse:
        console.print(f"worse than before: {regression}", style="bold yellow", markup=False)
    if worse:
        raise typer.Exit(2)


if __name__ == "__main__":
    app()
