"""What a deployment's steps came to, in results/deployment.json: for its context, and for the steps after them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zk0.checks import Outcome
from zk0.files import read_json, write_json
from zk0.network.config import CONFIG, DeploymentConfig
from zk0.params import PARAMS_FILE, Params, load_params

RECORD = Path("results/deployment.json")

# The seven documented steps of deployment, in order.
STEPS = (
    "environment validation",
    "configuration review",
    "security setup",
    "resource allocation",
    "service startup",
    "monitoring setup",
    "health checks",
)


@dataclass(frozen=True)
class Deployment:
    """What is to be deployed.

    Attributes:
        root: Project folder.
        params: Its params.
        config: Its deployment.yaml.
    """

    root: Path
    params: Params
    config: DeploymentConfig

    @classmethod
    def open(cls, root: Path) -> Deployment:
        """Read both files.

        Raises:
            ParamsError: params.yaml is missing or wrong.
            StageError: deployment.yaml is.
        """
        root = root.resolve()
        return cls(root, load_params(root / PARAMS_FILE), DeploymentConfig.read(root / CONFIG))


def remember(root: Path, step: str, outcome: Outcome) -> None:
    """Write down how a step ended; a first step begins a new record."""
    record = {} if step == STEPS[0] else read_record(root)
    record[step] = {
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "changed": outcome.changed,
        "told": list(outcome.told),
        "warnings": list(outcome.warnings),
        "facts": dict(outcome.facts),
    }
    write_json(root / RECORD, record)


def read_record(root: Path) -> dict[str, Any]:
    """The steps of the last deployment so far; empty where there is none."""
    try:
        return dict(read_json(root / RECORD))
    except FileNotFoundError:
        return {}
