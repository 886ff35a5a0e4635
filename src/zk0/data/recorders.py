"""Several simulated tasks recorded side by side, each by a process that alone loads LeRobot and the simulator."""

from __future__ import annotations

import multiprocessing
import queue
import shutil
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from zk0.console import progress_bar
from zk0.data.sim.tasks import find_task
from zk0.params import Params


def record_all(folder: Path, params: Params, tasks: Mapping[str, str]) -> None:
    """Record several tasks, each into ``folder/NAME``, as many at a time as params allow threads.

    Args:
        folder: Where the recordings go; those of other names are removed.
        params: Episodes, noise and seed.
        tasks: Name of the recording to name of the simulated task.
    """
    for stale in folder.glob("*"):
        if stale.name not in tasks:
            shutil.rmtree(stale)
    if not tasks:
        return
    context = multiprocessing.get_context("spawn")  # a forked child would share this one's GL and threads
    done: Any = context.Queue()
    with (
        progress_bar() as bar,
        ProcessPoolExecutor(params.threads, context, initializer=_report_to, initargs=(done,)) as pool,
    ):
        lines = {name: bar.add_task(f"recording {name}", total=params.data.episodes) for name in tasks}
        jobs = {pool.submit(_record, folder, params, name, find_task(task).name) for name, task in tasks.items()}
        while jobs:
            try:
                bar.advance(lines[done.get(timeout=0.2)])
            except queue.Empty:
                finished = {job for job in jobs if job.done()}
                for job in finished:
                    job.result()
                jobs -= finished


_done: Any = None


def _report_to(done: Any) -> None:
    """In a recording process: where to tell that an episode is finished."""
    global _done
    _done = done


def _record(folder: Path, params: Params, name: str, task: str) -> None:
    from zk0.data.recordings import record_source  # noqa: PLC0415 - LeRobot and the simulator

    record_source(folder, params, name, task, lambda: _done.put(name))
