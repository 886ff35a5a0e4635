"""Settings that a person wrote: YAML, of which no more is taken than such a file needs, and what is wrong in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from zk0.errors import StageError
from zk0.files import BadFileError, check_depth, read_json, read_text
from zk0.words import nearest_hint

_MOST_BYTES = 1 << 18
_LONGEST = 120  # characters told of what a file holds
_MOST = 20  # problems told of one file


class _Loader(yaml.SafeLoader):
    """Without references, by which a few lines stand for more than a memory holds, and without a key said twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise ComposerError(
                None, None, f"'*{event.anchor}' refers to another place; write it out", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    raise ConstructorError(None, None, f"the key '{key.value}' is there twice", key.start_mark)
                keys.add(key.value)
        return super().construct_mapping(node, deep)


def read_settings(path: Path) -> dict[str, Any]:
    """Read a file of settings.

    Raises:
        FileNotFoundError: It is not there.
        BadFileError: It cannot be read, is not YAML, or no mapping; names the file and the place in it.
    """
    return parse_settings(read_text(path, _MOST_BYTES), str(path))


def parse_settings(text: str, origin: str) -> dict[str, Any]:
    """Read settings; see :func:`read_settings`."""
    try:
        content = yaml.load(text, _Loader)  # a safe one
    except RecursionError as error:
        raise BadFileError(f"{origin} is nested too deep") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise BadFileError(f"{origin} is not valid YAML: {_told(error)}") from error
    if not isinstance(content, dict):
        raise BadFileError(f"{origin} must be a mapping of sections, but holds {type(content).__name__}")
    check_depth(content, origin)
    return content


def _told(error: Exception) -> str:
    """What is wrong and where, in one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return where + " ".join(str(problem).split())


class ParamsError(ValueError):
    """params.yaml says something that cannot be; the message lists every problem."""


class Section(BaseModel):
    """A part of a file of settings; what stands below a field describes it: meaning, unit, and the value for off."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def explained(error: ValidationError, model: type[BaseModel], origin: str) -> str:
    """Every problem on a line of its own: file, setting, rule, value; an unknown key with its nearest neighbour.

    Args:
        error: Of the model.
        model: What the file must be.
        origin: The file.
    """
    return "\n".join(f"{origin}: {sentence}" for sentence in _sentences(error, model))


def read_model[M: BaseModel](path: Path, model: type[M], most: int = 1 << 30) -> M:
    """Read a JSON file that holds a model's fields.

    Args:
        path: The file.
        model: What it must be.
        most: Bytes that it may have.

    Raises:
        FileNotFoundError: It is not there.
        BadFileError: It cannot be read, or breaks a rule; says what is wrong in one line.
    """
    try:
        return model.model_validate(read_json(path, most))
    except ValidationError as error:
        raise BadFileError("; ".join(_sentences(error, model))) from error


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


class SettingsFile(Section):
    """A whole file of settings, whose own sentence says what it is there for where it is missing."""

    MISSING: ClassVar[str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            StageError: It is missing, cannot be read, is not YAML, or breaks a rule; lists every problem.
        """
        try:
            return cls.parse(read_settings(path), str(path))
        except FileNotFoundError as error:
            raise StageError(cls.MISSING.format(path=path)) from error
        except BadFileError as error:
            raise StageError(str(error)) from error

    @classmethod
    def parse(cls, content: Any, origin: str = "settings") -> Self:
        """Check a mapping; see :meth:`read`."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise StageError(explained(error, cls, origin)) from error
