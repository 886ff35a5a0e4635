"""How a flow goes, as one view for a terminal."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from zk0.cli.flow_log import FlowLog, Stage, Work
from zk0.console import PROGRESS
from zk0.params import Params
from zk0.pipeline.stages import FEDERATE
from zk0.records.run import Event

_BAR = 12
_MOST = 8  # lines below a stage, and losses in one
_NOT_TOLD = re.compile(rf"[┓┃┩│┤┘]$|^{PROGRESS.pattern}$")  # tables, and what is a bar
_DRAWN = re.compile(r"(\d+) of \d+ sites train")
_STYLE = {"waiting": "dim", "at work": "bold cyan", "completed": "green", "unchanged": "green", "cancelled": "yellow"}


class FlowView:
    """The stages with their states and seconds; of the one at work its progress, and of the federation its losses.

    Args:
        log: Of the flow.
        params: The run's.
        file: The log's place, which is named.
        since: What the federation's journal has told before is of an earlier run.

    Attributes:
        stopping: Whether it was asked to stop.
    """

    def __init__(self, log: FlowLog, params: Params, file: Path, since: datetime) -> None:
        self.file, self.stopping = file, False
        self._log, self._began = log, time.monotonic()
        self._since = since.isoformat(timespec="milliseconds")
        partition = params.data.partition
        self._sites = len(params.data.sites) if partition.scheme == "none" else partition.sites
        self._total = params.federation.rounds
        self._rounds: Work | None = None
        self._round = Work(self._sites)  # the sites of the present one
        self._losses: dict[int, float] = {}
        self._said: dict[str, str] = {}  # by site

    @property
    def clock(self) -> str:
        """Since the flow began."""
        return clock(time.monotonic() - self._began)

    def hear(self, events: Iterable[Event]) -> None:
        """What the federation says, as it comes."""
        for event in events:
            if (event.time or "") < self._since:
                continue
            number = event.round or 0
            if event.event == "round-start":
                drawn = _DRAWN.search(event.message or "")
                self._round = Work(int(drawn[1]) if drawn else self._sites)
                self._rounds = self._rounds or Work(self._total, number - 1, first=number - 1)
            elif event.event in ("train", "site-left-out") and event.site:
                self._round.reach(self._round.done + 1)
                self._said[event.site] = (event.message or "").removeprefix(event.site).strip()
            elif event.event == "evaluate" and event.held_out_loss is not None:
                self._losses[number] = event.held_out_loss
                if self._rounds and number:
                    self._rounds.reach(number)

    def __rich__(self) -> RenderableType:
        grid = Table.grid(
            Column(),
            Column(min_width=9),
            Column(min_width=4, justify="right"),
            Column(ratio=1, no_wrap=True),
            padding=(0, 1),
            expand=True,
        )
        for stage in self._log.stages:
            seconds = clock(stage.seconds) if stage.began is not None else ""
            state = Text(stage.state, _STYLE.get(stage.state, "bold red"))
            grid.add_row(stage.short, state, seconds, self._detail(stage))
        return Group(self._head(), grid)

    def _head(self) -> Text:
        told = f"zk0 demo  {self.clock}   Prefect's log: {self.file}"
        if self.stopping:
            return Text(f"{told}   stopping", "yellow")
        return Text(told if any(stage.began for stage in self._log.stages) else f"{told}   Prefect starts", "bold")

    def _detail(self, stage: Stage) -> RenderableType:
        federates = stage.name == FEDERATE.name
        if stage.ended is not None:
            return _one_line(self._loss()) if federates else Text()
        if stage.began is None:
            return Text()
        told = next((line for line in reversed(stage.lines) if not _NOT_TOLD.search(line)), "")
        works = self._works() if federates and self._rounds else stage.work
        what = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        bars = Table.grid(what, *(Column(no_wrap=True) for _ in range(3)), padding=(0, 1), expand=True)
        for name, work in list(works.items())[-_MOST:]:
            left = work.left_s()
            said = "" if left is None else f"{clock(left)} left"
            bars.add_row(name, ProgressBar(work.total, work.done, width=_BAR), f"{work.done} of {work.total}", said)
        lines = self._told_by_sites() if federates and self._rounds else [told.strip()]
        return Group(*map(_one_line, lines), bars) if works else Group(*map(_one_line, lines))

    def _works(self) -> dict[str, Work]:
        return {"rounds": self._rounds or Work(self._total), "sites of this round": self._round}

    def _told_by_sites(self) -> Iterator[str]:
        yield self._loss()
        for site, said in list(self._said.items())[-_MOST:]:
            yield f"{site} {said}"

    def _loss(self) -> str:
        losses = [f"{loss:.3f}" for loss in list(self._losses.values())[-_MOST:]]
        return f"held-out loss {' '.join(losses)}" if losses else ""


def _one_line(text: str) -> Text:
    return Text(text, "dim", no_wrap=True, overflow="ellipsis")


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
