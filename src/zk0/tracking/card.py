"""The model card: what a person who finds a checkpoint must know of its data, training, results and limits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from zk0.evaluation.scores import UNSEEN
from zk0.files import read_json
from zk0.tracking import metric_names
from zk0.tracking.promotion import RECORD
from zk0.tracking.results import EVALUATION_FILE, RUN_FILE, TrackingError
from zk0.words import in_markdown

TEMPLATES = Path(__file__).with_name("templates")
NAME = "README.md"
_TRAINING = {
    "training.local_steps": "local steps a round",
    "training.batch": "batch",
    "training.learning_rate": "learning rate",
    "federation.proximal_mu": "proximal term",
    "federation.uplink": "updates travel as",
    "federation.downlink": "models travel as",
    "policy.lora_rank": "adapters' rank (0 = all of the expert)",
    "seed": "seed",
}


def render_card(client: MlflowClient, root: Path, version: ModelVersion, place: str) -> str:
    """The card of a version, in Markdown with the Hub's front matter.

    Args:
        client: Of the project's store.
        root: The project's root.
        version: Which.
        place: Where a reader finds the checkpoint: a repository, or a folder.

    Raises:
        TrackingError: The run's files are gone.
    """
    folder = root / client.get_run(str(version.run_id)).info.artifact_uri
    run = _kept(folder / "results" / RUN_FILE.name)
    if run is None:
        raise TrackingError(f"the files of '{version.name}', version {version.version}, lack {RUN_FILE.name}")
    params = metric_names.flatten(run["params"])
    evaluation = _kept(folder / EVALUATION_FILE)
    base = str(run["base"]["source"])
    tasks = evaluation["tasks"] if evaluation else {}
    return (
        _environment()
        .get_template("card.md.j2")
        .render(
            model=version.name,
            version=version.version,
            round=version.tags[metric_names.ROUND],
            digest=version.tags[metric_names.DIGEST],
            place=place,
            run=run,
            policy=run.get("policy", {}),
            params=params,
            training=[(name, what) for name, what in _TRAINING.items() if name in params],
            privacy=run.get("privacy", {}),
            evaluation=evaluation,
            unseen={name: task for name, task in tasks.items() if task["role"] == UNSEEN and "digest" in task},
            rollouts=max((task["global"]["rollouts"] for task in tasks.values()), default=0),
            promotion=_kept(folder / RECORD),
            step_limits=json.dumps(evaluation["max_relative_target"])
            if evaluation and "max_relative_target" in evaluation
            else None,
            base_model=base.removeprefix("hub:").partition("@")[0] if base.startswith("hub:") else None,
            hub_datasets=sorted({_repository(site) for site in run["sites"].values()} - {None}),
        )
    )


def _kept(file: Path) -> dict[str, Any] | None:
    return dict(read_json(file)) if file.is_file() else None


def _repository(manifest: Mapping[str, Any]) -> str | None:
    """Of the Hub, where the source names one: the card's head is YAML, and takes nothing else."""
    named = re.fullmatch(r"hub:([\w.-]+/[\w.-]+)(@.*)?", str(manifest["source"]))
    return named[1] if named else None


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=False,  # Markdown: see in_markdown
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["rate"] = lambda value: "-" if value is None else f"{value:.0%}"
    environment.filters["degrees"] = lambda value: "-" if value is None else f"{value:.2f}"
    environment.filters["interval"] = _interval
    environment.filters["cell"] = in_markdown
    return environment


def _interval(judged: Mapping[str, Any]) -> str:
    low, high = judged.get("success_low"), judged.get("success_high")
    return "-" if low is None or high is None else f"{low:.0%} to {high:.0%}"
