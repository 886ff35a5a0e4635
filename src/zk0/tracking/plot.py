"""A run at a glance, for MLflow's artifact view: held-out loss by round, and what it came to beside its base."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Run

from zk0.digests import digest_file
from zk0.records.results import MODELS, Evaluation
from zk0.records.run import Round, SiteRound
from zk0.svg import save_svg
from zk0.tracking.results import Results

FILE = "run.svg"
_NAMED_SITES = 8
_COLOURS = {"base": "#8a94a6", "global": "#2f7fd6"}


def ensure_plot(client: MlflowClient, results: Results, run: Run) -> list[str]:
    """Log the plot, unless the same one is there.

    Returns:
        The file's name if it was logged.
    """
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / FILE
        draw(results, drawn)
        logged = results.root / str(run.info.artifact_uri) / FILE
        if logged.is_file() and digest_file(logged) == digest_file(drawn):
            return []
        client.log_artifact(run.info.run_id, str(drawn))
    return [FILE]


def draw(results: Results, path: Path) -> None:
    """Draw a run; without an evaluation, its rounds only.

    Args:
        results: The run's.
        path: The SVG file.
    """
    evaluation = results.evaluation
    figure = Figure(figsize=(9.6 if evaluation else 5.4, 3.6), layout="constrained")
    if evaluation is None:
        _rounds(figure.subplots(), results)
    else:
        left, right = figure.subplots(1, 2)
        _rounds(left, results)
        _tasks(right, evaluation)
    save_svg(figure, path)


def _rounds(axes: Axes, results: Results) -> None:
    """Thin lines for the sites, a thick one for their mean, a star at the best round."""
    sites = list(results.run.sites)
    for number, site in enumerate(sites):
        points = _losses((one.round, one.sites[site]) for one in results.rounds if site in one.sites)
        label = site if len(sites) <= _NAMED_SITES else None
        axes.plot(*_columns(points), linewidth=1, color=f"C{number % 8 + 1}", label=label)
    mean = _losses((one.round, one) for one in results.rounds)
    axes.plot(*_columns(mean), linewidth=2.5, color=_COLOURS["global"], label="mean")
    best = [point for point in mean if point[0] == results.run.best_round]
    axes.plot(*_columns(best), "*", markersize=12, color=_COLOURS["global"], label="best round")
    axes.set(xlabel="round", ylabel="held-out loss")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)


def _tasks(axes: Axes, evaluation: Evaluation) -> None:
    """Base and global model on every task: success with Wilson intervals, or action error without a simulator."""
    tasks = evaluation.tasks
    closed_loop = all(task.of(model).success_rate is not None for task in tasks.values() for model in MODELS)
    names = [f"{name} (unseen)" if task.role == "unseen" else name for name, task in tasks.items()]
    for shift, model in zip((0.2, -0.2), MODELS, strict=True):
        found = [task.of(model) for task in tasks.values()]
        values = np.array([one.success_rate if closed_loop else one.action_error_deg for one in found], dtype=float)
        reach = None
        if closed_loop:
            # Rounding can put a bound at 0 or 1 on the wrong side of the rate by a hair.
            below = [max(0.0, (one.success_rate or 0) - (one.success_low or 0)) for one in found]
            above = [max(0.0, (one.success_high or 0) - (one.success_rate or 0)) for one in found]
            reach = [below, above]
        places = [len(names) - number + shift for number in range(len(names))]
        axes.barh(places, values, height=0.38, color=_COLOURS[model], label=model, xerr=reach, capsize=2)
    axes.set_yticks(range(len(names), 0, -1), names)
    axes.set_xlabel("success rate (95%)" if closed_loop else "action error (degrees)")
    axes.set_xlim(0, 1 if closed_loop else None)
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def _losses(rows: Iterable[tuple[int, Round | SiteRound]]) -> list[tuple[int, float]]:
    return [(number, row.held_out_loss) for number, row in rows if row.held_out_loss is not None]


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]
