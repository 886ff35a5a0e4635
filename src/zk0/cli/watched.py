"""A flow that a command runs in a process of its own: what it writes is read as it comes, and shown.

Its log and the federation's journal are all that is known of it. At a terminal they are one view that is drawn anew;
elsewhere they are lines.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.live import Live
from rich.text import Text

from zk0.cli.flow_log import SETTINGS, FlowLog, Stage
from zk0.cli.flow_view import FlowView, clock
from zk0.cli.warm import warm_process
from zk0.console import console, errors
from zk0.params import Params
from zk0.pipeline.stages import STAGES, alone
from zk0.records.files import EventsAsTheyCome
from zk0.records.paths import EVENTS
from zk0.services.supervise import end

LOG, _LOCK = Path(".run/demo.log"), Path(".run/demo.lock")

STOPPED = 130  # a shell's exit status of what Ctrl-C has ended
_POLL_S = 0.2
_SILENT_S = 4.0  # after which a line says that it is still at work
_PATIENCE_S = 180.0  # for a flow that was asked to stop
_END_S = 10.0
_WIDEST = 110
_LAST_LINES = 15


def run_flow(module: str, root: Path, params: Params, command: str) -> int:
    """Run a flow of the pipeline's stages, and show how it goes.

    Ctrl-C reaches it through here alone, since it has a session of its own: Prefect's server, which it starts, must
    still be there to be told.

    Args:
        module: The flow's, as ``flows.federate``.
        root: Project folder.
        params: Those of the project.
        command: That runs it, and goes on with it.

    Returns:
        Its exit status; ``STOPPED`` where it was stopped, which then has been told.

    Raises:
        StageError: It runs in this folder already.
    """
    environment = {**os.environ, **SETTINGS, "COLUMNS": str(min(console.width, _WIDEST) - 2)}
    with (
        alone(root / _LOCK, command),
        (root / LOG).open("w") as output,
        _stop_is_a_wish() as asked,
        warm_process(params.policy.device, environment) as door,
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=root,
            env={**environment, **door},
        )
        try:
            with FlowLog(root / LOG, STAGES) as log, EventsAsTheyCome(root / EVENTS) as events:
                show = _at_a_terminal if console.is_terminal else _in_lines
                show(log, FlowView(log, params, LOG, datetime.now(UTC)), events, _polled(process, asked))
        finally:  # also where nobody reads on
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_PATIENCE_S)
            ended = _end_session(process)
    if asked and ended:
        say_stopped(root, command)
        return STOPPED
    if ended:
        _say_failed(log)
    return ended


def say_stopped(root: Path, command: str) -> None:
    """Say what is kept of a flow that was stopped, and how it goes on."""
    from zk0.operations.monitor.progress import read_progress

    progress = read_progress(root)
    rounds = progress.round if progress and progress.active else 0
    console.print(f"stopped: {f'round {rounds}' if rounds else 'what is complete'} is kept; `{command}` goes on")


@contextmanager
def _stop_is_a_wish() -> Iterator[list[float]]:
    """Ctrl-C and the like are noted with their time, and end nothing; what was ignored, as by nohup, still is."""
    asked: list[float] = []
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    before = [signal.signal(number, lambda *_: asked.append(time.monotonic())) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _polled(process: subprocess.Popen[bytes], asked: Sequence[float]) -> Iterator[bool]:
    """Whether it was asked to stop, every now and then, and once more when it has ended."""
    told = False
    while process.poll() is None:
        if asked and not told:
            told = True
            process.send_signal(signal.SIGINT)
        if asked and time.monotonic() - asked[0] > _PATIENCE_S:
            _end_session(process)
        yield told
        time.sleep(_POLL_S)
    yield told


def _end_session(process: subprocess.Popen[bytes]) -> int:
    """End a flow that still runs, and what is left of its session, as the server of one that was killed.

    Returns:
        The flow's exit status.
    """
    process.kill()
    ended, rest = process.wait(), []
    for other in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(other.pid) == process.pid:
                rest.append(other)
    end(rest, psutil.Process.terminate, _END_S)
    return ended


def _at_a_terminal(log: FlowLog, view: FlowView, events: EventsAsTheyCome, polled: Iterable[bool]) -> None:
    with Live(view, console=console, auto_refresh=False, transient=True) as live:
        for view.stopping in polled:
            log.more()
            view.hear(events.more())
            live.refresh()
    console.print(view)


def _in_lines(log: FlowLog, view: FlowView, _events: EventsAsTheyCome, polled: Iterable[bool]) -> None:
    console.print(f"Prefect's log: {view.file}", markup=False)
    spoke, stopping = time.monotonic(), False
    for asked in polled:
        for stage, line in log.more():
            console.print(line if line else _headline(log, stage), markup=False)
            spoke = time.monotonic()
        if asked and not stopping:
            console.print("stopping: what is complete is kept", markup=False)
            spoke, stopping = time.monotonic(), True
        if time.monotonic() - spoke > _SILENT_S:
            at = log.at_work()
            told = f"{at.name} is at work, {clock(at.seconds)}" if at else f"Prefect is at work, {view.clock}"
            console.print(f"... {told}", style="dim", markup=False)
            spoke = time.monotonic()
    if log.told:
        console.print(log.told, markup=False)


def _headline(log: FlowLog, stage: Stage) -> str:
    number = f"{log.stages.index(stage) + 1} of {len(log.stages)}: {stage.name}"
    return f"{number}, {stage.state}, {clock(stage.seconds)}" if stage.ended else number


def _say_failed(log: FlowLog) -> None:
    """Its last lines, from where it says what was wrong."""
    stage = log.failed()
    lines = stage.lines if stage else log.others
    wrong = next((place for place, line in enumerate(lines) if line.startswith("error:")), -_LAST_LINES)
    if console.is_terminal or not stage:
        errors.print(Text("\n".join(lines[wrong:])))
    errors.print(Text(f"{stage.name if stage else 'the flow'} failed; Prefect's log: {LOG}", "bold red"))
