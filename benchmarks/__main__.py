"""Run the benchmarks: all of them or some, each in a process of its own, and write down what they found."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.harness import NAMES, RESULTS, VARIANTS, Fresh, Keep, Out, Quick
from benchmarks.performance import write_page
from benchmarks.pieces import FOLDER
from zk0 import runtime_env
from zk0.console import console
from zk0.errors import StageError
from zk0.measuring.history import QUICK
from zk0.measuring.rows import BenchmarkError, read_report
from zk0.params import ParamsError
from zk0.words import nearest_hint

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    quick: Quick = False,
    only: Annotated[list[str] | None, typer.Option(help=f"Only these, of: {', '.join(NAMES)}.")] = None,
    out: Out = None,
    fresh: Fresh = False,
    keep: Keep = False,
    render: Annotated[bool, typer.Option(help="Only write docs/PERFORMANCE.md anew, from what was measured.")] = False,
    compare: Annotated[bool, typer.Option(help="Only compare the last quick ones with earlier; 2 if worse.")] = False,
) -> None:
    """Measure, write benchmarks/results.json, refresh docs/PERFORMANCE.md; interrupted, it goes on where it was.

    With --quick the rows go into results/bench-quick.json, anew each time, and the page is left alone.
    """
    try:
        if compare:
            _compare(Path.cwd())
            return
        path = out or (QUICK if quick else RESULTS)
        chosen = checked(only)
        failed = [] if render else _run_all(chosen, path, quick, fresh, keep, begin_anew=quick and not only)
        if not quick:
            files = write_page(Path.cwd(), read_report(path))
            console.print(f"wrote {path} and {files[-1].relative_to(Path.cwd())}", markup=False)
    except (StageError, ParamsError) as error:
        console.print(f"error: {error}", style="bold red", markup=False)
        raise typer.Exit(1) from None
    if failed:
        console.print(f"failed: {', '.join(failed)}; the same command measures only what is missing", style="bold red")
        raise typer.Exit(1)


def _compare(root: Path) -> None:
    """Say what has become worse by more than benchmark.margin; exit status 2 if anything has."""
    runtime_env.switch_off()
    from zk0.tracking.benchmarks import compare_with_earlier  # noqa: PLC0415 - it loads mlflow, which takes seconds

    found = compare_with_earlier(root)
    console.print(f"compared with {found.earlier} earlier runs on this machine; MLflow experiment {found.experiment}")
    for regression in found.worse:
        console.print(f"worse than before: {regression}", style="bold yellow", markup=False)
    if found.worse:
        raise typer.Exit(2)


def checked(only: list[str] | None) -> list[str]:
    """The benchmarks to run, in their order.

    Raises:
        BenchmarkError: A name is unknown; suggests the nearest.
    """
    for name in only or ():
        if name not in NAMES:
            raise BenchmarkError(f"there is no benchmark '{name}'{nearest_hint(name, NAMES)}")
    return [name for name in NAMES if not only or name in only]


def _run_all(names: list[str], path: Path, quick: bool, fresh: bool, keep: bool, begin_anew: bool) -> list[str]:
    """Run each in its own process; one that fails does not keep the others from running.

    What they measured is kept until all are through, so that an interrupted set goes on where it was.
    """
    if begin_anew:
        path.unlink(missing_ok=True)
    runs = [(name, options) for name in names for options in ((), *(() if quick else VARIANTS.get(name, ())))]
    failed = []
    for place, (name, options) in enumerate(runs, 1):
        console.print(f"[dim]{place} of {len(runs)}[/]")
        command = [sys.executable, "-m", f"benchmarks.{name}", *options, "--part", "--out", str(path)]
        command += [flag for flag, on in (("--quick", quick), ("--fresh", fresh), ("--keep", keep)) if on]
        if subprocess.run(command, check=False).returncode:
            failed.append(shlex.join([name, *options]))
    if not failed:
        shutil.rmtree(FOLDER / ("quick" if quick else "full"), ignore_errors=True)
    return failed


if __name__ == "__main__":
    app()
