"""The files of a checkpoint's folder: regular ones inside it, of a bounded size, and strict JSON."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from zk0.errors import StageError
from zk0.files import each_key_once

JSON_BYTES = 1 << 20
_ENTRIES = 20_000
_SHOWN = 100
_ADVICE = "A checkpoint is read as data and nothing of it is run: use another, or save this one anew with LeRobot"


class CheckpointError(StageError):
    """A checkpoint holds something that no SmolVLA checkpoint has to hold; the message names file and place."""


class Strict(BaseModel):
    """What is parsed of a checkpoint: no other keys, no other types, finite numbers."""

    # Built when a file is first read: whoever only knows of checkpoints would pay for some thirty of these.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, defer_build=True)


@dataclass(frozen=True)
class Folder:
    """A checkpoint's folder; for one in the Hub's cache, with the folder of its blobs.

    Attributes:
        named: As a person named it, for errors.
    """

    named: Path

    @cached_property
    def path(self) -> Path:
        """Where it really is, links followed."""
        return self.named.resolve()

    @cached_property
    def _homes(self) -> tuple[Path, ...]:
        """Where its files may lie: in it, or, of a snapshot in the Hub's cache, among its repository's blobs."""
        blobs = self.path.parent.parent / "blobs"
        return (self.path, blobs) if self._cached and not blobs.is_symlink() else (self.path,)

    @property
    def _cached(self) -> bool:
        """Whether it is a snapshot in the Hub's cache."""
        return self.path.parent.name == "snapshots" and self.path.parent.parent.name.startswith("models--")

    def refused(self, where: str, found: str, expected: str, advice: str = _ADVICE) -> CheckpointError:
        """The error for something in it, as one line."""
        named = str(self.named)
        if self._cached:
            repository = self.path.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
            named = f"hub:{repository}@{self.path.name[:12]}"
        return CheckpointError(f"{named} is refused: {where}: {found}; expected {expected}. {advice}")

    def check_files(self) -> None:
        """Refuse links that lead out of it, and what is neither file nor folder.

        Whoever copies, digests or publishes the folder follows such a link.
        """
        left = _ENTRIES
        for here, folders, files in os.walk(self.path):
            left -= len(folders) + len(files)
            if left < 0:
                raise self.refused("the folder", f"more than {_ENTRIES} files", "those of one checkpoint")
            for name in folders:
                if (Path(here) / name).is_symlink():
                    raise self.refused(self._place(Path(here) / name), "a link to a folder", "a folder")
            for name in files:
                self._real(Path(here) / name)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.path / name).is_file()

    def names(self, folder: str) -> list[str]:
        """What is in one of its folders."""
        return sorted(path.name for path in (self.path / folder).iterdir())

    def file(self, name: str) -> Path:
        """Where a file of it really is.

        Raises:
            CheckpointError: It is missing, or no regular file inside the folder.
        """
        return self._real(self.path / name)

    def read(self, name: str, limit: int = JSON_BYTES) -> bytes:
        """A file's bytes.

        Raises:
            CheckpointError: It is missing, no regular file inside the folder, or longer than ``limit`` bytes.
        """
        try:
            with self.file(name).open("rb") as stream:
                content = stream.read(limit + 1)
        except OSError as error:
            raise self.refused(name, f"cannot be read ({error.strerror})", "a file that you may read") from error
        if len(content) > limit:
            raise self.refused(name, f"more than {limit} bytes", f"at most {limit}")
        return content

    def json(self, name: str, limit: int = JSON_BYTES) -> Any:
        """A file's JSON: no key twice, no NaN, no endless nesting."""
        try:
            return json.loads(self.read(name, limit), object_pairs_hook=each_key_once, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise self.refused(name, f"not valid JSON ({_first_line(error)})", "JSON as LeRobot writes it") from error

    def parse[T: BaseModel](self, model: type[T], content: Any, where: str) -> T:
        """Parse what a file holds by a strict model; the first thing that is wrong is told."""
        try:
            return model.model_validate(content)
        except (ValidationError, RecursionError) as error:
            if isinstance(error, RecursionError):
                raise self.refused(where, "nested too deep", "settings as LeRobot writes them") from error
            first = error.errors(include_url=False)[0]
            place = ".".join(shown(str(part), quoted=False) for part in first["loc"]) or "the whole"
            if first["type"] == "extra_forbidden":
                known = ", ".join(sorted(model.model_fields)) if len(first["loc"]) == 1 else "settings it has"
                raise self.refused(where, f"'{place}' is not known", f"only {known}") from error
            found = f"'{place}' is {shown(first['input'])}" if first["type"] != "missing" else f"'{place}' is missing"
            expected = "it to be there" if first["type"] == "missing" else _expected(first["msg"])
            raise self.refused(where, found, expected) from error

    def _real(self, path: Path) -> Path:
        place = self._place(path)
        try:
            real = path.resolve(strict=True)
            kind = real.lstat().st_mode
        except (OSError, RuntimeError) as error:
            raise self.refused(place, "missing, or a link to nothing", "a file") from error
        if not any(real.is_relative_to(home) for home in self._homes):
            raise self.refused(place, f"a link to {real}, outside the checkpoint", "a file of the folder")
        if not stat.S_ISREG(kind):
            raise self.refused(place, "no regular file", "a file")
        return real

    def _place(self, path: Path) -> str:
        return shown(path.relative_to(self.path).as_posix(), quoted=False)


def shown(value: object, quoted: bool = True) -> str:
    """A value of a checkpoint in an error: short, on one line, and printable."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**20:
        return f"a number of {value.bit_length()} bits"
    text = repr(value) if quoted and not isinstance(value, (dict, list)) else str(value)
    text = text.encode("ascii", "backslashreplace").decode() if not text.isprintable() else text
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _expected(message: str) -> str:
    """Pydantic's sentence as what stands behind "expected"."""
    return message.removeprefix("Input should be ").removeprefix("Value error, ").removeprefix("Field ")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _first_line(error: BaseException) -> str:
    return shown((str(error).strip() or type(error).__name__).splitlines()[0], quoted=False)
