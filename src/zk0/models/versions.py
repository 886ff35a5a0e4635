"""Commands about runs and the versions they became: list, promote, demote, show and publish them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from rich.markup import escape
from rich.table import Column, Table

from zk0.console import console, folded_table
from zk0.errors import StageError
from zk0.params import Params
from zk0.tracking.lineage import Description, RunRow, describe_version, list_runs
from zk0.tracking.metric_names import REFUSED, flatten
from zk0.tracking.promotion import Promotion
from zk0.tracking.promotion import demote as demote_champion
from zk0.tracking.promotion import promote as promote_version
from zk0.tracking.publish import publish_version

_WIDE = 140
_SHORT = 12
_MOST_PARAMS = 8


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


def runs_table(rows: list[RunRow], wide: bool) -> Table:
    """Runs as a table, newest first, without the columns that no run has anything for.

    Args:
        rows: The runs.
        wide: With the columns that a narrow terminal has no room for.
    """
    columns: dict[str, Callable[[RunRow], object]] = {
        "run": lambda row: row["name"],
        "codec": lambda row: row["codec"],
        "up MB": lambda row: _shown(row["bytes_up"], "{:.1f}", 1e-6),
        "seen": lambda row: _arrow(row["base_success_seen"], row["success_seen"], "{:.0%}"),
        "unseen": lambda row: _arrow(row["base_success_unseen"], row["success_unseen"], "{:.0%}"),
        "loss": lambda row: _shown(row["held_out_loss"], "{:.3f}"),
        "epsilon": lambda row: _shown(row["epsilon"], "{:.2f}"),
        "safe": lambda row: {1.0: "yes", 0.0: "no", None: None}.get(row["safe"]),
        "version": lambda row: ", ".join(row["versions"]) or None,
    }
    more: dict[str, Callable[[RunRow], object]] = {
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
    head = (Column(name, overflow="fold", no_wrap=name == "run") for name in kept)
    lines = zip(*kept.values(), strict=True)
    return folded_table(head, (["" if value is None else str(value) for value in line] for line in lines))


def _shown(value: float | None, form: str, factor: float = 1.0) -> str | None:
    return None if value is None else form.format(value * factor)


def _arrow(before: float | None, after: float | None, form: str) -> str | None:
    """What the base had, and what the run came to."""
    if after is None:
        return None
    return form.format(after) if before is None else f"{form.format(before)} > {form.format(after)}"


def publish(root: Path, params: Params, version: int, to: str, private: bool) -> None:
    """Push a version with its model card to the Hub, or write both into a folder."""
    console.print(f"published: {publish_version(root, params.tracking.model, version, to, private)}", markup=False)


def promote(root: Path, params: Params, version: int, force: bool) -> None:
    """Make a version the champion if the gate lets it pass, or by force.

    Raises:
        StageError: The gate refused; every reason is told and recorded.
    """
    result = promote_version(root, params.tracking.model, version, params.promotion, force)
    tell_promotion(params.tracking.model, result)
    if result.outcome == REFUSED:
        raise StageError(f"version {version} was not promoted; `zk0 promote {version} --force` does it all the same")


def tell_promotion(model_name: str, result: Promotion) -> None:
    """Say what was decided, and why."""
    before = f"; before it was version {result.before}" if result.before else ""
    said = {
        "promoted": f"{model_name} version {result.version} is the champion{before}",
        "forced": f"{model_name} version {result.version} is the champion, by force{before}",
        REFUSED: f"{model_name} version {result.version} does not become the champion",
    }
    console.print(said[result.outcome], markup=False)
    console.print(f"  compared with {result.decision.against}", markup=False)
    for reason in result.decision.reasons:
        console.print(f"  {reason}", style="yellow", markup=False)


def demote(root: Path, params: Params) -> None:
    """Give the champion's place back to the version that had it before."""
    was, now = demote_champion(root, params.tracking.model)
    told = f"version {now} is again" if now else "there is no champion now: nightly runs start from the base"
    console.print(f"version {was} is no longer the champion; {told}", markup=False)


def show(root: Path, params: Params, version: int, as_json: bool) -> None:
    """Print where a version comes from and the way back there on one page, or all that is known as JSON.

    Raises:
        TrackingError: There is no such version, or no store.
    """
    found = describe_version(root, params.tracking.model, version)
    if as_json:
        print(json.dumps(found, indent=2, default=str))
        return
    named = f" ({', '.join(found['aliases'])})" if found["aliases"] else ""
    console.print(f"{found['model']} version {version}{named}", style="bold", markup=False)
    console.print(found["description"], markup=False)
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(found, params):
        facts.add_row(name, escape(value))
    console.print(facts)
    console.print(_data(found))
    _commands("Send it to where another clone finds it:", found["push"])
    _commands("Bring it back, in a fresh clone that has the DVC remote:", found["commands"])
    _commands("Bring it back here, once nothing is uncommitted:", found["here"])
    for reason in found["cannot"]:
        console.print(f"Not brought back: {reason}", style="yellow", markup=False)


def _facts(found: Description, params: Params) -> Iterator[tuple[str, str]]:
    yield "run", f"{found['run']}, {found['strategy']}; MLflow {found['run_id'][:_SHORT]}"
    yield "checkpoint", f"round {found['round']}, digest {found['digest']}"
    yield "lies in", found["checkpoint"]
    yield "started from", f"{found['base_source']}, digest {found['base_digest']}"
    yield "code", f"{found['git_revision'] or 'no commit'}{', with uncommitted changes' * found['git_dirty']}"
    yield "experiment", found["dvc_experiment"] or "none"
    if found["flow_run"]:
        yield "flow run", found["flow_run"]
    yield "params", _differences(found["params"], flatten(params.model_dump(mode="json")))


def _differences(then: dict[str, str], now: dict[str, str]) -> str:
    """The run's params that are not those of today."""
    other = [f"{name} {then[name]}" for name in sorted(then) if now.get(name) != then[name]]
    if not other:
        return "as in params.yaml now"
    more = len(other) - _MOST_PARAMS
    return "\n".join(
        ["other than now:", *other[:_MOST_PARAMS], *([f"and {more} more, see --json"] if more > 0 else [])]
    )


def _data(found: Description) -> Table:
    table = folded_table(("data", "for", "source", "digest"))
    for name, given in found["datasets"].items():
        table.add_row(
            name, given["role"], escape(str(json.loads(given["source"]).get("source"))), given["digest"][:_SHORT]
        )
    return table


def _commands(title: str, commands: list[str]) -> None:
    if commands:
        console.print(title, markup=False)
    for command in commands:
        console.print(f"  {command}", markup=False, soft_wrap=True)
