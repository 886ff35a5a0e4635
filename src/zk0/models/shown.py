"""`zk0 model show`: where a model version comes from, and the way back there, on one page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from zk0.console import console
from zk0.params import Params
from zk0.tracking.lineage import describe_version
from zk0.tracking.metric_names import flatten

_SHORT = 12
_MOST_PARAMS = 8


def run(root: Path, params: Params, version: int, as_json: bool) -> None:
    """Print the page, or all that is known as JSON.

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


def _facts(found: dict[str, Any], params: Params) -> Iterator[tuple[str, str]]:
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


def _data(found: dict[str, Any]) -> Table:
    table = Table("data", "for", "source", "digest")
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
