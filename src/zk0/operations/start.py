"""Starting and stopping what deployment.yaml names: each group once, side by side, and all or nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from zk0.errors import StageError
from zk0.files import write_json
from zk0.network.config import DeploymentConfig, Group, port_of
from zk0.network.server.services import FederationServer
from zk0.operations import prefect_local
from zk0.operations.groups import DEPENDENTS, GROUPS, group_of, members, service_names
from zk0.operations.resources import gpu_share
from zk0.services.json_logs import UVICORN_JSON
from zk0.services.process import RUN, Services, answers, own_environment
from zk0.tracking import ARTIFACTS, DATABASE

_WAIT_S = 180.0
_GRACE_S = 20.0
_UVICORN_LOG = RUN / "mlflow" / "logging.json"


def start_groups(
    root: Path, config: DeploymentConfig, groups: Iterable[Group], more: Mapping[str, str] | None = None
) -> list[str]:
    """Start what of some groups does not run; the monitor last, lest it tells of what is only just coming up.

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
    before = set(Services(root / RUN).running())
    lacking = lacking_groups(root, groups)
    starters: dict[Group, Callable[[Path, DeploymentConfig], None]] = {
        "mlflow": _start_mlflow,
        "prefect": _start_prefect,
        "federation": _start_federation,
        "monitor": _start_monitor,
    }
    watched, watching = [g for g in lacking if g != "monitor"], [g for g in lacking if g == "monitor"]
    failures: dict[Group, BaseException] = {}
    started = [name for group in lacking for name in GROUPS[group] if group == "prefect" or name not in before]
    try:
        with _environment(more or {}), ThreadPoolExecutor(max(len(lacking), 1)) as pool:
            for together in (watched, watching):
                calls = {group: pool.submit(starters[group], root, config) for group in together if not failures}
                failures |= {group: error for group, call in calls.items() if (error := call.exception())}
    except KeyboardInterrupt:
        stop_services(root, started)
        raise
    if failures:
        stop_services(root, started)
        for error in failures.values():
            if not isinstance(error, StageError):
                raise error
        told = [f"{group}: {error}" for group, error in failures.items()]
        raise StageError("\n".join([*told, "what was started with it is stopped again"]))
    return started


def lacking_groups(root: Path, groups: Iterable[Group]) -> tuple[Group, ...]:
    """Those groups of which a service does not run."""
    running = set(Services(root / RUN).running())
    return tuple(group for group in groups if not set(GROUPS[group]) <= running)


def stop_services(root: Path, names: Iterable[str] | None = None) -> list[str]:
    """Stop services, the last started first.

    Args:
        root: Project folder.
        names: Which; by default all that were started there, also those that no deployment.yaml names.

    Returns:
        Those that were running.
    """
    services = Services(root / RUN)
    order = service_names()[::-1]
    wanted = list(services.known() if names is None else names)
    unknown = [name for name in wanted if name not in order]
    return services.stop([*unknown, *(name for name in order if name in wanted)], _GRACE_S)


def restart_services(root: Path, config: DeploymentConfig, names: Sequence[str]) -> list[str]:
    """Stop services and start them again; other services go on.

    Args:
        root: Project folder.
        config: What is wanted of each.
        names: Services or groups; none for all that deployment.yaml names.

    Returns:
        Those that were started.

    Raises:
        StageError: There is no such service, deployment.yaml does not name it, or it does not come up.
    """
    groups = list(dict.fromkeys(group_of(name) for name in names)) or list(config.services)
    if strange := [group for group in groups if group not in config.services]:
        raise StageError(f"deployment.yaml does not name {strange[0]} among its services; add it, then `zk0 deploy`")
    named = [one for name in names or groups for one in members(name)]
    stop_services(root, [*named, *(other for one in named for other in DEPENDENTS.get(one, ()))])
    return start_groups(root, config, groups, gpu_share(config.resources))


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
    command += ["--default-artifact-root", f"./{ARTIFACTS}", "--no-serve-artifacts"]
    write_json(root / _UVICORN_LOG, UVICORN_JSON)
    command += ["--uvicorn-opts", f"--log-config {_UVICORN_LOG}"]
    # Its job runner is four more processes of 400 MB each, for evaluations that nobody here asks for.
    _launch(root, "mlflow", command, lambda: answers(f"{url}/health"), MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")


def _start_prefect(root: Path, config: DeploymentConfig) -> None:
    prefect_local.stop(root)  # one without the other is of no use
    prefect_local.start(root, port_of(config.local_urls()["prefect"]), _WAIT_S)


def _start_federation(root: Path, config: DeploymentConfig) -> None:
    ports = config.ports
    upstream = f"https://{config.superlink}"
    server = FederationServer(root)
    server.start(_WAIT_S, host=config.listen, port=ports.gateway, upstream=upstream, metrics_port=ports.gateway_metrics)


def _start_monitor(root: Path, config: DeploymentConfig) -> None:
    command = [sys.executable, "-m", "zk0.operations.monitor", "--root", str(root)]
    _launch(root, "monitor", command, lambda: answers(f"http://127.0.0.1:{config.ports.monitor}/metrics"))


def _launch(root: Path, name: str, command: list[str], ready: Callable[[], bool], **more: str) -> None:
    services = Services(root / RUN)
    services.launch(name, command, own_environment(**more), root)
    services.await_ready(name, ready, _WAIT_S)
