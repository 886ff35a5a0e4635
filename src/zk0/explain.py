"""What pydantic found wrong, as sentences for whoever wrote the file."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from zk0.names import nearest_hint


def explained(error: ValidationError, model: type[BaseModel], origin: str) -> str:
    """Every problem on a line of its own: file, setting, rule, value; an unknown key with its nearest neighbour.

    Args:
        error: Of the model.
        model: What the file must be.
        origin: The file.
    """
    return "\n".join(f"{origin}: {_sentence(problem, model)}" for problem in error.errors())


def _sentence(problem: Any, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section: Any = model
        for part in problem["loc"][:-1]:
            section = section.model_fields[part].annotation
        return f"unknown key '{where}'{nearest_hint(str(problem['loc'][-1]), section.model_fields)}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], dict):
        return f"{where}: {message}" if where else message
    return f"{where}: {message} (got {problem['input']!r})"
