"""Recordings made side by side, each by a process of its own, with LeRobot and the simulator."""

from __future__ import annotations

import multiprocessing
import queue
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from zk0.console import progress_bar
from zk0.data.sim.tasks import find_task
from zk0.params import Params
from zk0.runtime_env import begin_child, end_children, may_fork
from zk0.sources import Source


def record_all(folder: Path, params: Params, sources: Mapping[str, Source]) -> None:
    """Record several tasks, each into ``folder/NAME``, one more at a time than params allow threads, or one alone.

    Args:
        folder: Where the recordings go; those of other names are removed.
        params: Episodes, noise and seed.
        sources: Name of the recording to the simulated source.
    """
    for source in sources.values():
        find_task(source.name)  # what is not there is refused before anything is removed or recorded
    for stale in folder.glob("*"):
        if stale.name not in sources:
            shutil.rmtree(stale)
    if not sources:
        return
    jobs = {name: partial(_record, folder, params, name, source) for name, source in sources.items()}
    # With as many as threads the last would have a core to itself, and another core nothing.
    side_by_side(jobs, dict.fromkeys(jobs, params.data.episodes), params.threads + (params.threads > 1))


def side_by_side(
    jobs: Mapping[str, Callable[[Callable[[], None]], None]], episodes: Mapping[str, int], processes: int
) -> None:
    """Run jobs in processes of their own, and show how far each is.

    The processes are forks where this one may have some, and so share what it has imported.

    Args:
        jobs: Name to what is to be done; it is sent to a process, and calls its argument after every episode.
        episodes: Name to how many it has.
        processes: How many run at a time.
    """
    context: Any = multiprocessing.get_context("fork" if may_fork() else "spawn")
    done = context.Queue()
    with ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=_report_to, initargs=(done,)) as pool:
        running = {pool.submit(_run, name, job) for name, job in jobs.items()}
        try:
            with progress_bar() as bar:
                lines = {name: bar.add_task(f"recording {name}", total=episodes[name]) for name in jobs}
                while running:
                    try:
                        bar.advance(lines[done.get(timeout=0.2)])
                    except queue.Empty:
                        finished = {job for job in running if job.done()}
                        for job in finished:
                            job.result()
                        running -= finished
        except BaseException:
            end_children()
            raise


_done: Any = None


def _report_to(done: Any) -> None:
    """In a recording process: where to tell that an episode is finished. It ends with the process that wants it."""
    global _done
    begin_child()
    _done = done


def _run(name: str, job: Callable[[Callable[[], None]], None]) -> None:
    job(lambda: _done.put(name))


def _record(folder: Path, params: Params, name: str, source: Source, finished: Callable[[], None]) -> None:
    from zk0.data.recordings import record_source  # noqa: PLC0415 - LeRobot and the simulator

    record_source(folder, params, name, source, finished)
