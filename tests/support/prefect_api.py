"""What a Prefect server knows, asked as its own pages ask it."""

from __future__ import annotations

import json
import urllib.request
from typing import Any


def post(url: str, body: dict[str, Any]) -> Any:
    """Ask one of its filters."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def states_of(api: str, flow: str | None = None) -> list[dict[str, Any]]:
    """States of runs, of one flow or of all; ``auto`` tells those that a schedule made, ``run`` is the run's name."""
    wanted = {"flows": {"name": {"any_": [flow]}}} if flow else {}
    return [run["state"] | {"auto": run["auto_scheduled"], "run": run["name"]} for run in _runs(api, wanted)]


def tasks_of(api: str, flow: str) -> list[dict[str, Any]]:
    """The task runs of a flow, in the order in which they ended; those that run come last."""
    ids = [run["id"] for run in _runs(api, {"flows": {"name": {"any_": [flow]}}})]
    found = post(f"{api}/task_runs/filter", {"flow_runs": {"id": {"any_": ids}}}) if ids else []
    return sorted(found, key=lambda task: task["end_time"] or "later")


def _runs(api: str, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    return list(post(f"{api}/flow_runs/filter", {"limit": 50, **wanted}))
