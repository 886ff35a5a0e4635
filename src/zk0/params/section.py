"""What every section of params.yaml shares."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from zk0.words import nearest_hint


class ParamsError(ValueError):
    """params.yaml says something that cannot be; the message lists every problem."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_LONGEST = 120  # characters told of what a file holds
_MOST = 20  # problems told of one file


def explained(error: ValidationError, model: type[BaseModel], origin: str) -> str:
    """Every problem on a line of its own: file, setting, rule, value; an unknown key with its nearest neighbour.

    Args:
        error: Of the model.
        model: What the file must be.
        origin: The file.
    """
    return "\n".join(f"{origin}: {sentence}" for sentence in _sentences(error, model))


def explained_in_one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The same as one line, without the file."""
    return "; ".join(_sentences(error, model))


def _sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    problems = error.errors(include_url=False)
    told = [_sentence(problem, model) for problem in problems[:_MOST]]
    return [*told, f"and {len(problems) - _MOST} more problems"] if len(problems) > _MOST else told


def _sentence(problem: Any, model: type[BaseModel]) -> str:
    where = _short(".".join(str(part) for part in problem["loc"]))
    if problem["type"] == "extra_forbidden":
        section: Any = model
        for part in problem["loc"][:-1]:
            section = section.model_fields[part].annotation if hasattr(section, "model_fields") else None
        known = getattr(section, "model_fields", None)
        return f"unknown key '{where}'{nearest_hint(_short(str(problem['loc'][-1])), known) if known else ''}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], dict):
        return f"{where}: {message}" if where else message
    return f"{where}: {message} (got {_short(repr(problem['input']))})".removeprefix(": ")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
