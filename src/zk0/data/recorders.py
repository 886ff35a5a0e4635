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
from zk0.sources import Source


def record_all(folder: Path, params: Params, sources: Mapping[str, Source]) -> None:
    """Record several tasks, each into ``folder/NAME``, as many at a time as params allow threads.

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
    context = multiprocessing.get_context("spawn")  # a forked child would share this one's GL and threads
    done: Any = context.Queue()
    with (
        progress_bar() as bar,
        ProcessPoolExecutor(params.threads, context, initializer=_report_to, initargs=(done,)) as pool,
    ):
        lines = {name: bar.add_task(f"recording {name}", total=params.data.episodes) for name in sources}
        jobs = {pool.submit(_record, folder, params, name, source) for name, source in sources.items()}
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


def _record(folder: Path, params: Params, name: str, source: Source) -> None:
    from zk0.data.recordings import record_source  # noqa: PLC0415 - LeRobot and the simulator

    record_source(folder, params, name, source, lambda: _done.put(name))
