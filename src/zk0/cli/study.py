"""`zk0 study`: what federation gains, as commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from zk0.cli.options import Engine, ParamsFile, params_on
from zk0.console import console

app = typer.Typer(
    no_args_is_help=True,
    help="What federation gains over base, single sites and pooled data: see docs/comparison.md.",
)

Quick = Annotated[bool, typer.Option("--quick", help="At small sizes, to see that it works; kept apart.")]
Only = Annotated[str | None, typer.Option("--only", metavar="ARM", help="One arm, for all training seeds.")]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="Only the first so many training seeds.")]

_STUDIES = {
    "comparison": "Base, each site alone, all data in one place, federated and its variants; goes on where it stopped.",
    "personalisation": "What a few steps of its own from the global model give a site.",
    "rooms": "Owners whose rooms and tasks differ, with few episodes each, and one who joins late.",
    "robustness": "Eight sites, one of them malicious, under each robust strategy and plain FedAvg.",
    "robustness-confirmation": "The chosen robust strategy and FedAvg once more, on training seeds and scenes that the "
    "choice has not seen.",
    "privacy": "What differential privacy costs the sites of these params, at several budgets.",
    "privacy-many": "What it costs many small sites that train adapters of rank 4.",
}


@app.command()
def feasibility(
    params: ParamsFile = Path("params.yaml"), quick: Quick = False, only: Only = None, engine: Engine = None
) -> None:
    """Success of pooled training by demonstrations, steps and trainable size, on development scenes."""
    _run("feasibility", params, quick, only, engine=engine)


def _study_command(name: str) -> Callable[..., None]:
    """What `zk0 study NAME` does, for those that can be run with fewer training seeds."""

    def run(
        params: ParamsFile = Path("params.yaml"),
        quick: Quick = False,
        only: Only = None,
        seeds: Seeds = None,
        engine: Engine = None,
    ) -> None:
        _run(name, params, quick, only, seeds, engine)

    return run


for _name, _about in _STUDIES.items():
    app.command(_name, help=_about)(_study_command(_name))


def _run(
    name: str, params_file: Path, quick: bool, only: str | None, seeds: int | None = None, engine: str | None = None
) -> None:
    from zk0.study.arms import arm_named
    from zk0.study.studies import study_named

    params = params_on(params_file, engine)
    study = study_named(name, params, quick, seeds)  # what cannot be is refused before anything heavy is imported
    if only is not None:
        arm_named(study.arms, only)
    from zk0.study.run import run

    run(Path.cwd(), study, only)


@app.command()
def nights(
    params: ParamsFile = Path("params.yaml"), quick: Quick = False, seeds: Seeds = None, engine: Engine = None
) -> None:
    """Seven nights of the nightly run on a world that changes, each from the champion; goes on where it stopped."""
    from zk0.study.week import week_of

    found = params_on(params, engine)
    week_of(found, found.study.training_seeds[0])  # what cannot be is refused before anything heavy is imported
    from zk0.study.nights_tables import overview
    from zk0.study.weeks import run

    console.print(overview(run(Path.cwd(), found, quick, seeds)))


@app.command("rooms-probe")
def rooms_probe(params: ParamsFile = Path("params.yaml"), quick: Quick = False, engine: Engine = None) -> None:
    """What a federated model loses in rooms that it has not seen, by what differs and how much."""
    from zk0.study.studies import study_named

    found = params_on(params, engine)
    study_named("comparison", found, quick)  # what cannot be is refused before anything heavy is imported
    from zk0.study.probe import run
    from zk0.study.probe_page import overview

    for table in overview(run(Path.cwd(), found, quick)):
        console.print(table)


@app.command()
def page() -> None:
    """Render docs/RESULTS.md from the pieces in results/studies."""
    from zk0.study.page import write_page

    written = write_page(Path.cwd())
    console.print(f"{written[-1]} and {len(written) - 1} plots", markup=False)
