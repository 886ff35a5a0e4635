"""`zk0 study`: what federation gains, as commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zk0.cli.options import ParamsFile
from zk0.console import console

app = typer.Typer(
    no_args_is_help=True,
    help="What federation gains over base, single sites and pooled data: see docs/comparison.md.",
)

Quick = Annotated[bool, typer.Option("--quick", help="At small sizes, to see that it works; kept apart.")]
Only = Annotated[str | None, typer.Option("--only", metavar="ARM", help="One arm, for all training seeds.")]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="Only the first so many training seeds.")]


def _run(name: str, params_file: Path, quick: bool, only: str | None, seeds: int | None = None) -> None:
    from zk0.params import load_params
    from zk0.study.arms import arm_named
    from zk0.study.studies import study_named

    params = load_params(params_file)
    study = study_named(name, params, quick, seeds)  # what cannot be is refused before anything heavy is imported
    if only is not None:
        arm_named(study.arms, only)
    from zk0.study.runner import run

    run(Path.cwd(), study, only)


@app.command()
def comparison(
    params: ParamsFile = Path("params.yaml"), quick: Quick = False, only: Only = None, seeds: Seeds = None
) -> None:
    """Base, each site alone, all data in one place, federated and its variants; goes on where it stopped."""
    _run("comparison", params, quick, only, seeds)


@app.command()
def feasibility(params: ParamsFile = Path("params.yaml"), quick: Quick = False, only: Only = None) -> None:
    """Success of pooled training by demonstrations, steps and trainable size, on development scenes."""
    _run("feasibility", params, quick, only)


@app.command()
def personalisation(
    params: ParamsFile = Path("params.yaml"), quick: Quick = False, only: Only = None, seeds: Seeds = None
) -> None:
    """What a few steps of its own from the global model give a site."""
    _run("personalisation", params, quick, only, seeds)


@app.command()
def robustness(
    params: ParamsFile = Path("params.yaml"), quick: Quick = False, only: Only = None, seeds: Seeds = None
) -> None:
    """Eight sites, one of them malicious, under each robust strategy and plain FedAvg."""
    _run("robustness", params, quick, only, seeds)


@app.command()
def robustness_confirmation(
    params: ParamsFile = Path("params.yaml"), quick: Quick = False, only: Only = None, seeds: Seeds = None
) -> None:
    """The chosen robust strategy and FedAvg once more, on training seeds and scenes that the choice has not seen."""
    _run("robustness-confirmation", params, quick, only, seeds)


@app.command()
def privacy(
    params: ParamsFile = Path("params.yaml"), quick: Quick = False, only: Only = None, seeds: Seeds = None
) -> None:
    """What differential privacy costs the sites of these params, at several budgets."""
    _run("privacy", params, quick, only, seeds)


@app.command()
def privacy_many(
    params: ParamsFile = Path("params.yaml"), quick: Quick = False, only: Only = None, seeds: Seeds = None
) -> None:
    """What it costs many small sites that train adapters of rank 4."""
    _run("privacy-many", params, quick, only, seeds)


@app.command()
def page() -> None:
    """Render docs/RESULTS.md from the pieces in results/studies."""
    from zk0.study.page import write_page

    written = write_page(Path.cwd())
    console.print(f"{written[-1]} and {len(written) - 1} plots", markup=False)
