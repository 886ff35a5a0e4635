"""What the earlier stages wrote, read and checked before a line of the report is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from zk0.errors import StageError
from zk0.files import read_json, read_records
from zk0.records.schemas import Benchmark, Environment, Evaluation, Event, Round, Run

ENVIRONMENT = "results/environment.json"
RUN = "results/federation/run.json"
ROUNDS = "results/federation/rounds.jsonl"
EVENTS = "results/federation/events.jsonl"
EVALUATION = "results/evaluation.json"
BENCHMARK = "results/benchmark.json"
MAKERS = {
    ENVIRONMENT: "validate",
    RUN: "federate",
    ROUNDS: "federate",
    EVENTS: "federate",
    EVALUATION: "evaluate",
    BENCHMARK: "benchmark",
}


class ReportError(StageError):
    """An input of the report does not hold what it should; names file, place and stage."""


class MissingInputError(ReportError, FileNotFoundError):
    """An input of the report is not there; names file and stage."""


@dataclass(frozen=True)
class Inputs:
    """Everything the report shows, except the videos' bytes."""

    environment: Environment
    run: Run
    rounds: list[Round]
    events: list[Event]
    evaluation: Evaluation
    benchmark: Benchmark


def read_inputs(root: Path) -> Inputs:
    """Read the results below the project's root.

    Raises:
        MissingInputError: A file is not there. All missing files are named, with their stages.
        ReportError: A file is not JSON, or lacks something that the report shows.
    """
    if missing := [name for name in MAKERS if not (root / name).is_file()]:
        lines = [f"{root / name} is missing; the {MAKERS[name]} stage makes it" for name in missing]
        raise MissingInputError("\n".join([*lines, "run `dvc repro`, which runs the stages in order"]))
    rounds = _read_lines(root, ROUNDS, Round)
    if not rounds:
        raise ReportError(f"{root / ROUNDS} holds no round, not even round 0; run the federate stage again")
    return Inputs(
        environment=_read(root, ENVIRONMENT, Environment),
        run=_read(root, RUN, Run),
        rounds=rounds,
        events=_read_lines(root, EVENTS, Event, may_be_cut_off=True),
        evaluation=_read(root, EVALUATION, Evaluation),
        benchmark=_read(root, BENCHMARK, Benchmark),
    )


def _read[R: BaseModel](root: Path, name: str, kind: type[R]) -> R:
    """One JSON file as a record."""
    try:
        content = read_json(root / name)
    except ValueError as error:
        raise ReportError(f"{error}; run the {MAKERS[name]} stage again") from error
    return _parse(content, kind, str(root / name), MAKERS[name])


def _read_lines[R: BaseModel](root: Path, name: str, kind: type[R], may_be_cut_off: bool = False) -> list[R]:
    """A file of one JSON object a line as records; where lines are appended, a kill may cut off the last."""
    try:
        lines = read_records(root / name, broken="last" if may_be_cut_off else "none")
    except ValueError as error:
        raise ReportError(f"{error}; run the {MAKERS[name]} stage again") from error
    return [_parse(line, kind, f"{root / name}, line {n}", MAKERS[name]) for n, line in lines.items()]


def _parse[R: BaseModel](content: Any, kind: type[R], where: str, stage: str) -> R:
    """A JSON value as a record; the error lists every problem."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, p['loc'])) or 'content'}: {p['msg'].lower()}" for p in error.errors()]
        raise ReportError(f"{where}: {'; '.join(problems)}; run the {stage} stage again") from error
