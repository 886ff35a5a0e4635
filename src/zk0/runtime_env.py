"""A process's surroundings: telemetry off, chatter down, waiting short, before any library is imported; and its end.

A setting that is already in the environment is left as it is.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import cached_property

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "DVC_NO_ANALYTICS": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


# How long GNU OpenMP's threads spin at the end of a parallel loop before they sleep. With its own 300,000
# one busy neighbour on two cores slows a training step down 20 times, with this 3 times, and with 0 twice;
# on an idle machine this costs 3%, and 0 costs 20%.
SPINS = 10_000

# New objects after which Python looks for circles among them. LeRobot's import makes some hundred thousand that all
# stay; with Python's own 700 looking through them takes a sixth of the import's time, with this nothing to speak of.
_COLLECT_AFTER = 10_000

_read_distributions = importlib.metadata.packages_distributions
_whole = False


def switch_off(gives_back: bool = False) -> None:
    """Put the settings into this process's environment, and so into its children's, and settle what is freed.

    Args:
        gives_back: What is freed goes back to the kernel at once, where much only passes through; else it is kept.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("MUJOCO_GL"):  # set but empty, to MuJoCo it would be a backend that it does not know
        os.environ.pop("MUJOCO_GL", None)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
    gc.set_threshold(_COLLECT_AFTER)
    _set_malloc(gives_back)
    _shorten_imports()


def begin_child() -> None:
    """In a process of multiprocessing: settle its surroundings, and end as soon as the one that started it does.

    It inherits the environment, and nothing else of :func:`switch_off`. Whatever ended its parent, it would finish what
    it does first, and write where the parent's next run already writes. Ctrl-C is for the parent to act on. A fork has
    none of its parent's OpenMP threads, and would wait for them.
    """
    switch_off()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def end_children() -> None:
    """End this process's children of multiprocessing: what they would finish is not wanted any more."""
    for child in multiprocessing.active_children():
        child.terminate()


def keep_whole() -> None:
    """Note that this process has begun what no fork of it would have: a GL driver's threads, say."""
    global _whole
    _whole = True


def may_fork() -> bool:
    """Whether forks of this process would work as it does, and so share what it has imported and loaded."""
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_initialized()
    return sys.platform == "linux" and threading.active_count() == 1 and not (_whole or on_gpu)


def _wait_for_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _shorten_imports() -> None:
    """Spare LeRobot's import a quarter of its time: what transformers looks up and imports that nothing here uses."""
    importlib.metadata.packages_distributions = _Distributions
    # Where scikit-learn is installed (MLflow wants it), it is imported for a way of generating text.
    sys.modules.setdefault("sklearn", None)  # type: ignore[arg-type]


class _Distributions(Mapping[str, list[str]]):
    """Packages to the distributions that they are from: the one of the package's own name, or all are read."""

    @cached_property
    def _all(self) -> Mapping[str, list[str]]:
        return _read_distributions()

    def __getitem__(self, package: str) -> list[str]:
        try:
            return [importlib.metadata.distribution(package).name]
        except importlib.metadata.PackageNotFoundError:
            return self._all[package]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


def _set_malloc(gives_back: bool) -> None:
    """Let glibc give back what is freed, or hold on to it. Elsewhere than on glibc nothing is done.

    Steps and rounds free and take the same hundreds of megabytes over and over. Given back to the
    kernel in between, every page would be cleared and mapped anew, which costs more than the
    arithmetic on it. A SuperLink's threads take each update once, and would hold many of them.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    if gives_back:
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, 1 << 18)
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the largest that glibc takes
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
