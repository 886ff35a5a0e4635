"""Starting and stopping what deployment.yaml names: each group once, side by side, and all or nothing; Prefect alone as
well; and what brings services up again after a reboot of the machine.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from zk0.errors import StageError
from zk0.files import write_json
from zk0.network.config import DEPENDENTS, GROUPS, DeploymentConfig, Group, group_of, members, port_of, service_names
from zk0.network.server.services import FederationServer
from zk0.operations.resources import gpu_share
from zk0.services.process import RUN, Services, answers, own_environment
from zk0.services.telemetry import UVICORN_JSON
from zk0.tracking import ARTIFACTS, DATABASE

_WAIT_S = 180.0
_GRACE_S = 20.0
POOL = "zk0"
# Into the services' logs, that is; a flow run's own log is in the server's database.
_PREFECT_JSON_LOGS = {"PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json"}
# The job runner of MLflow's server is four more processes of 400 MB each, for evaluations that nobody here asks for.
MLFLOW_WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
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
    write_json(root / _UVICORN_LOG, UVICORN_JSON)
    command = [*mlflow_command(root, port_of(url)), "--uvicorn-opts", f"--log-config {_UVICORN_LOG}"]
    _launch(root, "mlflow", command, lambda: answers(f"{url}/health"), **MLFLOW_WITHOUT_JOBS)


def mlflow_command(root: Path, port: int) -> list[str]:
    """What serves a project's own MLflow store on loopback."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root / DATABASE}"]
    return [*command, "--default-artifact-root", f"./{ARTIFACTS}", "--no-serve-artifacts"]


def _start_prefect(root: Path, config: DeploymentConfig) -> None:
    stop_prefect(root)  # one without the other is of no use
    start_prefect(root, port_of(config.local_urls()["prefect"]), _WAIT_S)


def start_prefect(root: Path, port: int = 4200, wait_s: float = 240.0) -> str:
    """Start server and worker, create the work pool, deploy the flows.

    Args:
        root: Project folder; the worker runs flows in it.
        port: The server's, on loopback.
        wait_s: How long to wait for the server to answer.

    Returns:
        The server's address.

    Raises:
        StageError: They are running already, or the server does not come up; says where the log is.
    """
    services = Services(root / RUN)
    if alive := services.running().keys() & set(GROUPS["prefect"]):
        raise StageError(f"already running: {', '.join(sorted(alive))}; `zk0 down` stops them")
    url = f"http://127.0.0.1:{port}"
    env = own_environment(PREFECT_API_URL=f"{url}/api", ZK0_HOME=str(root), **_PREFECT_JSON_LOGS)
    try:
        server = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
        services.launch("prefect-server", [sys.executable, "-m", "prefect", *server], env, root)
        services.await_ready("prefect-server", lambda: answers(f"{url}/api/health"), wait_s)
        _prefect(root, ["work-pool", "create", POOL, "--type", "process", "--overwrite"], env)
        _prefect(root, ["deploy", "--all"], env)
        worker = ["worker", "start", "--pool", POOL, "--type", "process"]
        # Flow runs are its children; one of hours goes on without a worker.
        command = [sys.executable, "-m", "prefect", *worker]
        services.launch("prefect-worker", command, env, root, after=[port], outlived=True)
    except BaseException:  # Ctrl-C among them
        stop_prefect(root)
        raise
    return url


def stop_prefect(root: Path, wait_s: float = _GRACE_S) -> list[str]:
    """Stop what :func:`start_prefect` started, worker first, with everything it started itself.

    Returns:
        Names of the services that were running.
    """
    return Services(root / RUN).stop(GROUPS["prefect"][::-1], wait_s)


def _prefect(root: Path, words: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *words],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StageError(
            f"`prefect {' '.join(words)}` failed: {done.stdout.strip()[-800:]} {done.stderr.strip()[-800:]}"
        )


def _start_federation(root: Path, config: DeploymentConfig) -> None:
    ports = config.ports
    upstream = f"https://{config.superlink}"
    server = FederationServer(root)
    server.start(_WAIT_S, host=config.listen, port=ports.gateway, upstream=upstream, metrics_port=ports.gateway_metrics)


def _start_monitor(root: Path, config: DeploymentConfig) -> None:
    command = [sys.executable, "-m", "zk0.operations.monitor.service", "--root", str(root)]
    _launch(root, "monitor", command, lambda: answers(f"http://127.0.0.1:{config.ports.monitor}/metrics"))


def _launch(root: Path, name: str, command: list[str], ready: Callable[[], bool], **more: str) -> None:
    services = Services(root / RUN)
    services.launch(name, command, own_environment(**more), root)
    services.await_ready(name, ready, _WAIT_S)


def unit(what: str, root: Path, start: str, stop: str) -> str:
    """A unit for ``systemctl --user``, with how to install it.

    Args:
        what: Is started, in words.
        root: Folder in which the commands run.
        start: Words after `zk0` that start it.
        stop: Words after `zk0` that stop it.
    """
    name = "-".join(["zk0", *(word for word in start.split() if word not in ("client", "start"))])
    return f"""\
# Write this to ~/.config/systemd/user/{name}.service, then:
#   systemctl --user daemon-reload && systemctl --user enable {name} && loginctl enable-linger
[Unit]
Description={what}
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
WorkingDirectory={str(root).replace("%", "%%")}
ExecStart={_systemd(start)}
ExecStop={_systemd(stop)}
TimeoutStartSec=900

[Install]
WantedBy=default.target
"""


def cron_line(root: Path, start: str) -> str:
    """A line for `crontab -e`, where there is no systemd."""
    line = f"cd {shlex.quote(str(root))} && {shlex.join([sys.executable, '-m', 'zk0', *start.split()])}"
    return f"@reboot {line}".replace("%", r"\%")


def _systemd(words: str) -> str:
    quoted = [f'"{_escaped(word)}"' for word in (sys.executable, "-m", "zk0", *words.split())]
    return " ".join(quoted)


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
