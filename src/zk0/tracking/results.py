"""The result files that are projected into MLflow, read and checked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xxhash

from zk0.digests import digest_folder
from zk0.errors import StageError
from zk0.files import read_json, read_records

RUN_FILE = Path("results/federation/run.json")
ROUNDS_FILE = Path("results/federation/rounds.jsonl")
EVALUATION_FILE = Path("results/evaluation.json")
BENCHMARK_FILE = Path("results/benchmark.json")
REPORT_FILE = Path("results/report.html")

_RUN_KEYS = (
    "run",
    "started",
    "ended",
    "params",
    "base.source",
    "base.digest",
    "sites",
    "rounds",
    "best_round",
    "git.revision",
    "git.dirty",
    "checkpoints.best.path",
    "checkpoints.best.digest",
    "checkpoints.last.path",
    "checkpoints.last.digest",
)
_EVALUATION_KEYS = (
    "models.global.digest",
    "models.base.digest",
    "tasks",
    "overall.base",
    "overall.global",
    "safety.global",
    "safety.base",
)


class TrackingError(StageError):
    """Something cannot be tracked or found; the message says what and which command mends it."""


@dataclass(frozen=True)
class Results:
    """What one federated run left behind.

    Attributes:
        root: The project's root, with the MLflow store.
        place: Folder in which the run's files lie: the root, or a training's below it.
        run: Content of run.json.
        digest: Of run.json's content. With ``run["run"]``, the params' digest, it names the run:
            the same params trained again are another run.
        rounds: Lines of rounds.jsonl, from round 0 on.
        evaluation: Content of evaluation.json, if it judges this run's best model.
        benchmark: Content of benchmark.json, if it was measured after this run began.
        report: The report, if it can show this run: it is written after the evaluation.
        skipped: Why a file that is there was left out.
    """

    root: Path
    place: Path
    run: dict[str, Any]
    digest: str
    rounds: tuple[dict[str, Any], ...]
    evaluation: dict[str, Any] | None
    benchmark: dict[str, Any] | None
    report: Path | None
    skipped: tuple[str, ...]

    @property
    def started_ms(self) -> int:
        return milliseconds(self.run["started"])

    @property
    def ended_ms(self) -> int:
        return milliseconds(self.run["ended"])

    @property
    def best_round(self) -> int:
        return int(self.run["best_round"])

    def checkpoint(self, which: str) -> dict[str, str]:
        """Path and digest of the ``best`` or the ``last`` checkpoint."""
        content: dict[str, str] = self.run["checkpoints"][which]
        return content

    def checkpoint_folder(self, which: str) -> Path:
        """The checkpoint's folder, after making sure that it holds the weights of this run.

        Raises:
            TrackingError: It is missing, or belongs to another run.
        """
        named = self.checkpoint(which)
        folder = self.place / named["path"]
        if not folder.is_dir():
            raise TrackingError(f"{named['path']} is missing; `zk0 federate` (or `dvc checkout`) brings it back")
        if (found := digest_folder(folder)) != named["digest"]:
            raise TrackingError(
                f"{named['path']} has digest {found}, but {RUN_FILE} says {named['digest']}: "
                "the two are of different runs; `dvc checkout` or `zk0 federate` makes them agree"
            )
        return folder


def milliseconds(iso: str) -> int:
    """Milliseconds since 1970 of an ISO time; one without a zone is taken as UTC."""
    time = datetime.fromisoformat(iso)
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def read_results(root: Path, place: Path | None = None) -> Results:
    """Read a run's result files.

    Args:
        root: The project's root.
        place: Folder with ``results/`` and ``checkpoints/``, the root or below it; None is the root.

    Raises:
        TrackingError: The run's files are missing, cut short or contradict each other, or a later
            stage's file lacks something; names the file and the stage that writes it.
    """
    place = place or root
    run = _read(place, RUN_FILE, "federate", _RUN_KEYS)
    rounds = _read_rounds(place, int(run["rounds"]))
    skipped = []
    evaluation = report = None
    if (place / EVALUATION_FILE).exists():
        evaluation = _read(place, EVALUATION_FILE, "evaluate", _EVALUATION_KEYS)
        if evaluation["models"]["global"]["digest"] != run["checkpoints"]["best"]["digest"]:
            skipped.append(f"{EVALUATION_FILE} judges another model; `zk0 evaluate` renews it")
            evaluation = None
    if (place / REPORT_FILE).exists():
        if evaluation is None:
            skipped.append(f"{REPORT_FILE} is older than this run's evaluation; `zk0 report` renews it")
        else:
            report = place / REPORT_FILE
    benchmark = None
    if (place / BENCHMARK_FILE).exists():
        benchmark = _read(place, BENCHMARK_FILE, "benchmark", ("created", "rows"))
        if milliseconds(benchmark["created"]) < milliseconds(run["started"]):
            skipped.append(f"{BENCHMARK_FILE} was measured before this run began; `zk0 benchmark` renews it")
            benchmark = None
    digest = xxhash.xxh3_128_hexdigest(json.dumps(run, sort_keys=True).encode())
    return Results(root, place, run, digest, rounds, evaluation, benchmark, report, tuple(skipped))


def _read(root: Path, file: Path, stage: str, keys: Iterable[str]) -> dict[str, Any]:
    """A JSON file that must hold some dotted keys."""
    try:
        content = read_json(root / file)
    except FileNotFoundError as error:
        raise TrackingError(f"{file} is missing; `zk0 {stage}` makes it") from error
    except ValueError as error:
        raise TrackingError(f"{error}; run `zk0 {stage}` again") from error
    for key in keys:
        value = content
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise TrackingError(f"{file} lacks '{key}'; run `zk0 {stage}` again")
            value = value[part]
    return dict(content)


def _read_rounds(root: Path, last: int) -> tuple[dict[str, Any], ...]:
    """The lines of rounds.jsonl, which must be rounds 0 to ``last``."""
    try:
        rounds = tuple(read_records(root / ROUNDS_FILE, broken="none").values())
    except FileNotFoundError as error:
        raise TrackingError(f"{ROUNDS_FILE} is missing; `zk0 federate` makes it") from error
    except ValueError as error:
        raise TrackingError(f"{error}; run `zk0 federate` again") from error
    numbers = [content.get("round") for content in rounds]
    if numbers != list(range(last + 1)):
        raise TrackingError(
            f"{ROUNDS_FILE} holds rounds {numbers}, but {RUN_FILE} tells of rounds 0 to {last}; "
            "run `zk0 federate` again"
        )
    return rounds
