"""Starting and stopping what deployment.yaml names: each group once, side by side, and all or nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from zk0.deployment import local
from zk0.deployment.config import DeploymentConfig, Group, port_of
from zk0.deployment.services.groups import GROUPS, service_names
from zk0.deployment.services.process import Services, own_environment
from zk0.deployment.services.server import start_server
from zk0.errors import StageError
from zk0.tracking import DATABASE

_WAIT_S = 180.0
_GRACE_S = 20.0


def start_groups(
    root: Path, config: DeploymentConfig, groups: Iterable[Group], more: Mapping[str, str] | None = None
) -> list[str]:
    """Start groups that do not run; one of which a part is gone is started anew.

    Args:
        root: Project folder.
        config: What is wanted of each.
        groups: Which.
        more: Further environment of what is started.

    Returns:
        Names of the services that were started; none where all ran.

    Raises:
        StageError: One did not come up; what was started by this call is stopped again.
    """
    services = Services(root / local.RUN)
    running = services.running()
    lacking = [group for group in groups if not set(GROUPS[group]) <= set(running)]
    stop_services(root, [name for group in lacking for name in GROUPS[group]])
    starters: dict[Group, Callable[[Path, DeploymentConfig], None]] = {
        "mlflow": _start_mlflow,
        "prefect": _start_prefect,
        "federation": start_server,
        "monitor": _start_monitor,
    }
    with _environment(more or {}), ThreadPoolExecutor(max(len(lacking), 1)) as pool:
        calls = {group: pool.submit(starters[group], root, config) for group in lacking}
        problems = [f"{group}: {error}" for group, call in calls.items() if (error := call.exception())]
        unforeseen = [
            call.exception() for call in calls.values() if not isinstance(call.exception(), StageError | None)
        ]
    started = [name for group in lacking for name in GROUPS[group]]
    if problems:
        stop_services(root, started)
        if unforeseen:
            raise unforeseen[0]  # type: ignore[misc]
        raise StageError("\n".join([*problems, "what was started with it is stopped again"]))
    return started


def stop_services(root: Path, names: Iterable[str] | None = None) -> list[str]:
    """Stop services, the last started first.

    Args:
        root: Project folder.
        names: Which; by default all that run there, also those that no deployment.yaml names.

    Returns:
        Those that were running.
    """
    services = Services(root / local.RUN)
    order = service_names()[::-1]
    wanted = list(services.running() if names is None else names)
    unknown = [name for name in wanted if name not in order]
    return services.stop([*unknown, *(name for name in order if name in wanted)], _GRACE_S)


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """What services inherit: ours and more, and nothing of the flow run that may be starting them."""
    before = dict(os.environ)
    for name in [name for name in before if name.startswith("PREFECT__")]:
        del os.environ[name]
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _start_mlflow(root: Path, config: DeploymentConfig) -> None:
    url = config.local_urls()["mlflow"]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port_of(url))]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{root / DATABASE}"]
    command += ["--default-artifact-root", "./mlruns", "--no-serve-artifacts"]
    _launch(root, "mlflow", command, lambda: answers(f"{url}/health"))


def _start_prefect(root: Path, config: DeploymentConfig) -> None:
    local.start(root, port_of(config.local_urls()["prefect"]), _WAIT_S)


def _start_monitor(root: Path, config: DeploymentConfig) -> None:
    command = [sys.executable, "-m", "zk0.deployment.monitor", "--root", str(root)]
    _launch(root, "monitor", command, lambda: answers(f"http://127.0.0.1:{config.ports.monitor}/metrics"))


def _launch(root: Path, name: str, command: list[str], ready: Callable[[], bool]) -> None:
    services = Services(root / local.RUN)
    services.launch(name, command, own_environment(), root)
    services.await_ready(name, ready, _WAIT_S)


def answers(url: str) -> bool:
    """Whether an address can be had."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False
