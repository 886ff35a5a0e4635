"""What a flow writes into its log, stage by stage."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from zk0.console import PROGRESS
from zk0.steps import Step


@dataclass
class Work:
    """Counted work.

    Attributes:
        total: How much there is.
        done: How much is over.
        began: When it began, on the monotonic clock.
        first: How much was over then.
    """

    total: int
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    first: int = 0
    _moved: float = 0.0

    def reach(self, done: int) -> None:
        """So much is over now."""
        if done != self.done:
            self.done, self._moved = done, time.monotonic()

    def left_s(self) -> float | None:
        """Seconds until all is over, by what was done so far; None while nothing was, or all is."""
        done = self.done - self.first
        if done <= 0 or self.done >= self.total:
            return None
        each, waited = (self._moved - self.began) / done, time.monotonic() - self._moved
        return max(0.0, each * (self.total - self.done) - waited)


@dataclass
class Stage:
    """A stage as far as its log tells.

    Attributes:
        name: In the flow.
        short: As a command.
        state: In a word.
        began: When, on the monotonic clock; None = not yet.
        ended: The same.
        lines: What it wrote.
        work: Its counted work, by what it is.
    """

    name: str
    short: str
    state: str = "waiting"
    began: float | None = None
    ended: float | None = None
    lines: list[str] = field(default_factory=list)
    work: dict[str, Work] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """It has taken so far."""
        return 0.0 if self.began is None else (self.ended or time.monotonic()) - self.began


_FLOW = "flow"
# What makes Prefect write what is read here.
_FORMAT = "%(asctime)s.%(msecs)03d | %(levelname)-7s | {} | %(message)s"
SETTINGS = {
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": _FORMAT.format("%(task_name)s"),
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": _FORMAT.format(_FLOW),
}
_LINE = re.compile(r"[\d:.]+ \| \w+ +\| (?P<step>[^|]+?) \| (?P<text>.*)")
_ENDED = re.compile(r"Finished in state (?P<state>\w+)\((?:'|\")?(?P<told>.*?)(?:'|\")?(?:, type=\w+)?\)")
# What DVC and Prefect say of themselves.
_THEIRS = re.compile(
    r"Running stage '|> zk0 |(Generating|Updating) lock file|Stage '\w+' didn't change|Data and pipelines are|Task run "
)


class FlowLog:
    """The log of a flow that runs. Use as a context.

    Args:
        path: The file.
        steps: The flow's, in order.

    Attributes:
        stages: As far as the log tells.
        others: Lines that belong to none.
        told: How the flow has ended, in its own words.
    """

    def __init__(self, path: Path, steps: Sequence[Step[..., Any]]) -> None:
        self._stream = path.open(errors="replace")
        self._rest = ""
        self.stages = [Stage(step.name, step.stage or step.name) for step in steps]
        self.others: list[str] = []
        self.told = ""

    def more(self) -> list[tuple[Stage, str]]:
        """What stages have said since the last call; an empty line where one has begun or ended."""
        *lines, self._rest = (self._rest + self._stream.read()).split("\n")
        return [found for line in lines for found in self._take(line)]

    def at_work(self) -> Stage | None:
        """The stage that has begun and not ended."""
        return next((stage for stage in self.stages if stage.began is not None and stage.ended is None), None)

    def failed(self) -> Stage | None:
        """The stage that has begun and not ended well."""
        return next((stage for stage in self.stages if stage.state in ("at work", "failed", "crashed")), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def _take(self, line: str) -> Iterator[tuple[Stage, str]]:
        found = _LINE.fullmatch(line)
        stage = next((one for one in self.stages if found and one.name == found["step"]), None)
        if found is None or stage is None:
            ended = _ENDED.match(found["text"]) if found and found["step"] == _FLOW else None
            self.told = ended["told"] if ended else self.told
            self.others += [line] if line.strip() else []
            return
        if stage.began is None:
            stage.began, stage.state = time.monotonic(), "at work"
            yield stage, ""
        text = found["text"]
        if ended := _ENDED.match(text):
            stage.ended, stage.state = time.monotonic(), ended["state"].lower()
            yield stage, ""
        elif not _THEIRS.match(text):
            stage.lines.append(text)
            if counted := PROGRESS.fullmatch(text):
                work = stage.work.setdefault(counted["what"], Work(int(counted["total"]), first=int(counted["done"])))
                work.reach(int(counted["done"]))
            yield stage, text
