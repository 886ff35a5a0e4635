"""The one reader and the one writer of what a run leaves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, Self

from pydantic import ValidationError

from zk0.errors import StageError
from zk0.files import BadFileError, parse_json, read_mapping, read_records, write_json, write_text
from zk0.records import paths
from zk0.records.base import Record
from zk0.records.comparison import Comparison
from zk0.records.results import (
    Benchmark,
    Deployment,
    Environment,
    Evaluation,
    SiteSummary,
    Tracking,
    Video,
)
from zk0.records.run import Event, Round, Run

FILMS = {".mp4": "video/mp4", ".webm": "video/webm"}
_PLACES: dict[type[Record], Path] = {
    Environment: paths.ENVIRONMENT,
    Run: paths.RUN,
    Round: paths.ROUNDS,
    Event: paths.EVENTS,
    Evaluation: paths.EVALUATION,
    Benchmark: paths.BENCHMARK,
    Tracking: paths.TRACKING,
    Deployment: paths.DEPLOYMENT,
    SiteSummary: paths.SITE_SUMMARY,
    Comparison: paths.COMPARISON,
}


class RecordError(StageError, BadFileError):
    """A file is not what a stage writes; names file, place and the command that writes it."""


class MissingRecordError(RecordError, FileNotFoundError):
    """A file is not there; names the command that makes it."""


def read[R: Record](root: Path, kind: type[R], file: Path | None = None) -> R:
    """What a stage wrote.

    Args:
        root: Project folder.
        kind: Which record.
        file: Where it is, if it is not in its place below the root.

    Raises:
        MissingRecordError: It is not there.
        RecordError: It cannot be read, is no JSON, or lacks something.
    """
    path = file or root / _PLACES[kind]
    try:
        return parse(read_mapping(path), kind, str(path))
    except FileNotFoundError as error:
        raise missing(path, kind) from error
    except BadFileError as error:
        raise _again(error, kind) from error


def film(root: Path, video: Video) -> Path:
    """Where the film of a rollout lies.

    Raises:
        MissingRecordError: It is not there.
        RecordError: It is of an unknown kind, or outside the project.
    """
    place = PurePosixPath(video.file)
    # Judged by its text: DVC may link results to a cache elsewhere, and such a link is fine.
    if place.is_absolute() or ".." in place.parts:
        raise RecordError(f"{root / paths.EVALUATION} lists the video {video.file}, which is outside the project")
    if place.suffix not in FILMS:
        raise RecordError(f"{root / paths.EVALUATION} lists {video.file}; a video must end in {' or '.join(FILMS)}")
    if not (root / place).is_file():
        raise MissingRecordError(f"{root / place} is missing; `zk0 evaluate` makes it")
    return root / place


def read_rounds(root: Path) -> list[Round]:
    """The rounds of a run that is over; every line must be one.

    Raises:
        MissingRecordError: There is no file.
        RecordError: A line is cut off, or lacks something.
    """
    return _read_lines(root / paths.ROUNDS, Round, "none")


def read_journal(root: Path) -> list[Event]:
    """The events of a run that is over; a kill may have cut off the last line, which is left out then.

    Raises:
        MissingRecordError: There is no file.
        RecordError: Another line is damaged, or lacks something.
    """
    return _read_lines(root / paths.EVENTS, Event, "last")


def rounds_so_far(root: Path) -> list[Round]:
    """The complete rounds of a run that may still be going on; none where there is no file yet."""
    return _complete_lines(root / paths.ROUNDS, Round)


def events_so_far(path: Path) -> list[Event]:
    """The complete events of a journal that may still be written to; none where there is no file yet."""
    return _complete_lines(path, Event)


class EventsAsTheyCome:
    """The events of a journal that is being written to: what was read is not read again. Use as a context.

    Args:
        path: The journal; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: BinaryIO | None = None
        self._rest = b""

    def more(self) -> list[Event]:
        """The complete events since the last call; all of them again where the journal was written anew meanwhile."""
        with suppress(FileNotFoundError):
            found = self._path.stat()
            # While it is open, no other file gets its number.
            if self._stream is None or not os.path.samestat(os.fstat(self._stream.fileno()), found):
                self.__exit__()
                self._stream, self._rest = self._path.open("rb"), b""
        if self._stream is None:
            return []
        *lines, self._rest = (self._rest + self._stream.read()).split(b"\n")
        return [event for line in lines if (event := _event(line))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a file of events or rounds; none where there is no file yet."""
    try:
        return list(read_records(path).values())
    except FileNotFoundError:
        return []


def parse[R: Record](content: Any, kind: type[R], where: str) -> R:
    """A JSON value as a record.

    Raises:
        BadFileError: It is none; lists every problem, each by its dotted place.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        places = [(".".join(map(str, problem["loc"])) or "content", problem) for problem in error.errors()]
        lacking = [f"'{place}'" for place, problem in places if problem["type"] == "missing"]
        wrong = [f"{place}: {problem['msg'].lower()}" for place, problem in places if problem["type"] != "missing"]
        lacks = [f"lacks {', '.join(lacking)}"] if lacking else []
        raise BadFileError(f"{where} {'; '.join([*lacks, *wrong])}") from error


def write(root: Path, record: Record) -> None:
    """Write a record in its place below the root."""
    write_json(root / _PLACES[type(record)], record.content())


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Write rounds or events, one a line, in place of what is there."""
    write_text(path, "\n".join(json.dumps(record.content()) for record in records))


def append_lines(path: Path, records: Iterable[Record]) -> None:
    """Write rounds or events behind those that are there."""
    with path.open("a") as stream:
        stream.write("".join(f"{json.dumps(record.content())}\n" for record in records))


def require(root: Path, *kinds: type[Record]) -> None:
    """See that the files of several records are there.

    Raises:
        MissingRecordError: Some are not; names all of them at once.
    """
    absent = [kind for kind in kinds if not (root / _PLACES[kind]).is_file()]
    if absent:
        lines = [str(missing(root / _PLACES[kind], kind)) for kind in absent]
        raise MissingRecordError("\n".join([*lines, "run `dvc repro`, which runs the stages in order"]))


def missing(path: Path, kind: type[Record]) -> MissingRecordError:
    """That a file is not there, and what makes it."""
    return MissingRecordError(f"{path} is missing; `zk0 {_maker(kind)}` makes it")


def _read_lines[R: Record](path: Path, kind: type[R], broken: Literal["none", "last"]) -> list[R]:
    try:
        lines = read_records(path, broken=broken)
        return [parse(line, kind, f"{path}, line {number}") for number, line in lines.items()]
    except FileNotFoundError as error:
        raise missing(path, kind) from error
    except BadFileError as error:
        raise _again(error, kind) from error


def _complete_lines[R: Record](path: Path, kind: type[R]) -> list[R]:
    found = []
    for line in read_lines(path):
        with suppress(ValidationError):  # of a line that somebody else wrote, nothing is known
            found.append(kind.model_validate(line))
    return found


def _event(line: bytes) -> Event | None:
    """An event's line; None where somebody else wrote it."""
    try:
        return Event.model_validate(parse_json(line.decode(), ""))
    except (UnicodeDecodeError, BadFileError, ValidationError):
        return None


def _maker(kind: type[Record]) -> str:
    return paths.MAKERS[_PLACES[kind]]


def _again(error: BadFileError, kind: type[Record]) -> RecordError:
    return RecordError(f"{error}; run `zk0 {_maker(kind)}` again")
