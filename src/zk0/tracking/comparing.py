"""From what a person calls a model to its evaluation, or to its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from zk0.digests import digest_folder
from zk0.evaluation.scores import Scores
from zk0.files import read_json
from zk0.tracking.promotion import label, read_evaluation
from zk0.tracking.registry import aliases, find_version, version_checkpoint
from zk0.tracking.results import EVALUATION_FILE, TrackingError
from zk0.tracking.store import opened


def read_scores(root: Path, model_name: str, model: str) -> Scores:
    """The evaluation of a model.

    Args:
        root: The project's root.
        model_name: The registered model.
        model: A version's number; an alias (``@champion``, ``@challenger``); ``base``, the starting
            policy of this project's last evaluation; an evaluation.json, or a folder that holds one;
            a checkpoint folder that this project's last evaluation judged.

    Raises:
        TrackingError: There is no such model, or it was not evaluated; says what there is.
    """
    root = root.resolve()
    if model.isdecimal() or model.startswith("@"):
        with opened(root) as client:
            version = find_version(client, model_name, _number(client, model_name, model))
            evaluation = read_evaluation(client, root, version)
        assert evaluation is not None
        return _scores(evaluation, "global", _named(version, model))
    if model == "base":
        return _scores(_read(root / EVALUATION_FILE), "base", "the base policy")
    return _from_path(root, Path(model))


def read_checkpoint(root: Path, model_name: str, model: str) -> tuple[Path, str]:
    """The checkpoint of a model, and how to name it.

    Args:
        root: The project's root.
        model_name: The registered model.
        model: A version's number, an alias, or a checkpoint folder.

    Raises:
        TrackingError: There is no such model.
    """
    if model.isdecimal() or model.startswith("@"):
        with opened(root) as client:
            version = find_version(client, model_name, _number(client, model_name, model))
            return version_checkpoint(client, root.resolve(), version), _named(version, model)
    if not Path(model).is_dir():
        raise TrackingError(f"'{model}' is no model: expected a version's number, @ALIAS, base, or a checkpoint folder")
    return Path(model), model


def _named(version: ModelVersion, model: str) -> str:
    return label(version) + (f" ({model})" if model.startswith("@") else "")


def _number(client: MlflowClient, model_name: str, model: str) -> int:
    if model.isdecimal():
        return int(model)
    known = aliases(client, model_name) or {}
    alias = model.removeprefix("@")
    if alias not in known:
        there = ", ".join(f"@{name} (version {number})" for name, number in sorted(known.items())) or "none"
        raise TrackingError(f"'{model_name}' has no alias '{model}'; there are: {there}")
    return known[alias]


def _from_path(root: Path, path: Path) -> Scores:
    if path.is_file():
        return _scores(_read(path), "global", str(path))
    for inside in (path / EVALUATION_FILE.name, path / EVALUATION_FILE):
        if inside.is_file():
            return _scores(_read(inside), "global", str(path))
    if not path.is_dir():
        raise TrackingError(
            f"'{path}' is no model: expected a version's number, @ALIAS, base, an evaluation.json or a folder"
        )
    digest, judged = digest_folder(path), {}
    if (root / EVALUATION_FILE).is_file():
        evaluation = _read(root / EVALUATION_FILE)
        judged = {model: str(evaluation["models"][model]["digest"]) for model in ("global", "base")}
        for model, known in judged.items():
            if known == digest:
                return _scores(evaluation, model, str(path))
    raise TrackingError(
        f"{path} holds no {EVALUATION_FILE.name}, and {EVALUATION_FILE} judges other models; name a registered "
        "version, or run `zk0 evaluate` where the checkpoint is the run's best"
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(read_json(file))
    except FileNotFoundError as error:
        raise TrackingError(f"{file} is missing; `zk0 evaluate` makes it") from error
    except ValueError as error:
        raise TrackingError(f"{error}; run `zk0 evaluate` again") from error


def _scores(evaluation: Mapping[str, Any], model: str, named: str) -> Scores:
    try:
        return Scores.of(evaluation, model, named)
    except (KeyError, TypeError, AttributeError) as error:
        raise TrackingError(f"the evaluation of {named} is not one that `zk0 evaluate` writes: {error!r}") from error
