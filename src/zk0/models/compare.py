"""Commands about federated models: compare two, list the runs, publish one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from zk0.console import console
from zk0.errors import StageError
from zk0.evaluation.paired import Difference
from zk0.evaluation.scores import METRICS, Comparison, IncomparableError, Metric, Scores
from zk0.evaluation.scores import compare as compare_scores
from zk0.params import Params
from zk0.tracking.comparing import read_checkpoint, read_scores
from zk0.tracking.gate import in_words
from zk0.tracking.lineage import list_runs

_WIDE = 140
_ROLES = {"site": "sites' tasks", "unseen": "unseen tasks"}


def compare(root: Path, params: Params, first: str, second: str, anew: bool = False) -> None:
    """Print the paired comparison of two models by every metric that both have.

    Args:
        root: Project folder.
        params: The project's.
        first: A model, see :func:`zk0.tracking.comparing.read_scores`.
        second: Another.
        anew: Judge both again, on this project's prepared data and its scenes, whatever is kept of them.

    Raises:
        StageError: A model is not there, or the two share no scenes by any metric.
    """
    name = params.tracking.model
    if anew:
        a, b = (_judged_anew(root, params, model) for model in (first, second))
    else:
        a, b = read_scores(root, name, first), read_scores(root, name, second)
    reasons = []
    for metric in METRICS:
        try:
            found = compare_scores(a, b, metric, params.promotion.confidence)
        except IncomparableError as error:
            reasons.append(str(error))
            continue
        console.print(comparison_table(a, b, found, params.promotion.confidence))
        for task, reason in found.left_out.items():
            console.print(f"{task} is left out: {reason}", style="yellow", markup=False)
    if len(reasons) == len(METRICS):
        raise StageError("\n".join(reasons))
    for scores in (a, b):
        failed = f"failed: {', '.join(scores.failed)}" if not scores.safe else "passed"
        console.print(f"safety check of {scores.label} {failed}", markup=False)


def _judged_anew(root: Path, params: Params, model: str) -> Scores:
    """Judge a model, whichever run it is of, as the project stands."""
    import torch

    from zk0.digests import digest_folder
    from zk0.federation.run import locked_base
    from zk0.models.judge import judge_here
    from zk0.policy.checkpoint import load_checkpoint
    from zk0.policy.start import load_start, resolve_device

    torch.set_num_threads(params.threads)
    if model == "base":
        source, digest = locked_base(root)
        label, loaded = "the base policy", load_start(root, source, params.policy.device)
    else:
        folder, label = read_checkpoint(root, params.tracking.model, model)
        digest, loaded = digest_folder(folder), load_checkpoint(folder, resolve_device(params.policy.device))
    return Scores.of(judge_here(root, params, loaded, digest, label), "global", label)


def comparison_table(a: Scores, b: Scores, found: Comparison, confidence: float) -> Table:
    """Task by task and overall: both means, the gain of the first with its interval, and p values."""
    table = Table(title=f"{found.metric}: {a.label} against {b.label}", title_justify="left")
    for column in ("", a.label, b.label, f"gain ({confidence:.0%} interval)", "p better", "p worse", "scenes"):
        table.add_column(column, justify="left" if not column else "right")
    for task, one in found.tasks.items():
        values = (_value(found.metric, one.a), _value(found.metric, one.b))
        table.add_row(task, *values, *_gain(found.metric, one.gain), str(one.scenes))
    table.add_section()
    for role, gain in found.overall.items():
        mine = [one for one in found.tasks.values() if one.role == role]
        means = (sum(one.a for one in mine) / len(mine), sum(one.b for one in mine) / len(mine))
        values = (_value(found.metric, means[0]), _value(found.metric, means[1]))
        table.add_row(_ROLES.get(role, role), *values, *_gain(found.metric, gain), style="bold")
    return table


def _value(metric: Metric, value: float) -> str:
    return f"{value:.0%}" if metric == "success_rate" else f"{value:.2f} deg"


def _gain(metric: Metric, gain: Difference) -> tuple[str, str, str]:
    low, high = (in_words(metric, end).split(" ")[0] for end in (gain.low, gain.high))
    return f"{in_words(metric, gain.value)} ({low} to {high})", f"{gain.p_better:.2g}", f"{gain.p_worse:.2g}"


def runs(root: Path, params: Params) -> None:
    """Print the tracked federated runs: what each was, what it cost, what came of it."""
    rows = list_runs(root, params.tracking.experiment)
    for row in rows:  # the registered model is params' own: its name would only take room
        row["versions"] = [label.removeprefix(f"{params.tracking.model}/") for label in row["versions"]]
    if not rows:
        console.print("no runs yet; `zk0 track` puts one into MLflow")
        return
    console.print(runs_table(rows, console.width >= _WIDE))
    for row in rows:
        if row["refused"]:
            console.print(f"{row['name']}: {row['refused']}", style="yellow", markup=False)


def runs_table(rows: list[dict[str, Any]], wide: bool) -> Table:
    """Runs as a table, newest first, without the columns that no run has anything for.

    Args:
        rows: See :func:`zk0.tracking.lineage.list_runs`.
        wide: With the columns that a narrow terminal has no room for.
    """
    columns: dict[str, Callable[[dict[str, Any]], Any]] = {
        "run": lambda row: row["name"],
        "codec": lambda row: row["codec"],
        "up MB": lambda row: _shown(row["bytes_up"], "{:.1f}", 1e-6),
        "seen": lambda row: _arrow(row["base_success_seen"], row["success_seen"], "{:.0%}"),
        "unseen": lambda row: _arrow(row["base_success_unseen"], row["success_unseen"], "{:.0%}"),
        "loss": lambda row: _shown(row["held_out_loss"], "{:.3f}"),
        "epsilon": lambda row: _shown(row["epsilon"], "{:.2f}"),
        "safe": lambda row: {1.0: "yes", 0.0: "no"}.get(row["safe"]),
        "version": lambda row: ", ".join(row["versions"]) or None,
    }
    more: dict[str, Callable[[dict[str, Any]], Any]] = {
        "when": lambda row: f"{datetime.fromtimestamp(row['started_ms'] / 1000, UTC):%Y-%m-%d %H:%M}",
        "sites": lambda row: row["sites"],
        "rounds": lambda row: row["rounds"],
        "error deg": lambda row: _arrow(row["base_action_error_deg"], row["action_error_deg"], "{:.2f}"),
        "down MB": lambda row: _shown(row["bytes_down"], "{:.1f}", 1e-6),
        "wall s": lambda row: _shown(row["wall_s"], "{:.0f}"),
    }
    chosen = {**columns, **more} if wide else columns
    cells = {name: [read(row) for row in rows] for name, read in chosen.items()}
    kept = {name: values for name, values in cells.items() if any(value is not None for value in values)}
    table = Table()
    for name in kept:
        table.add_column(name, overflow="fold", no_wrap=name == "run")
    for values in zip(*kept.values(), strict=True):
        table.add_row(*("" if value is None else str(value) for value in values))
    return table


def _shown(value: float | None, form: str, factor: float = 1.0) -> str | None:
    return None if value is None else form.format(value * factor)


def _arrow(before: float | None, after: float | None, form: str) -> str | None:
    """What the base had, and what the run came to."""
    if after is None:
        return None
    return form.format(after) if before is None else f"{form.format(before)} > {form.format(after)}"


def publish(root: Path, params: Params, version: int, to: str, private: bool) -> None:
    """Push a version with its model card to the Hub, or write both into a folder."""
    from zk0.tracking.publish import publish_version

    console.print(f"published: {publish_version(root, params.tracking.model, version, to, private)}", markup=False)
