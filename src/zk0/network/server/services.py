"""SuperLink, SuperExec and gateway on the operator's machine: started in order, stopped in order."""

from __future__ import annotations

import ssl
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from zk0.errors import StageError
from zk0.federation.flower import NodeStatus, Status, control_pb2
from zk0.network.gateway.config import GatewayConfig
from zk0.network.security.files import SECURITY, SUPERLINK, Places, read_operator_token
from zk0.network.security.sites import SiteRegistry
from zk0.network.server.control import control, register_sites
from zk0.network.server.wanted import NAME, forget_wanted, wanted_run
from zk0.private_files import private_folder
from zk0.services.process import RUN, Services, own_environment

NAMES = ("gateway", "superexec", "superlink")  # the order in which they are stopped
GATEWAY_FILE = Path("gateway.yaml")
_WAIT_S = 90.0
_OWN_FILES = {"certificate", "key", "registry", "authority"}  # where they are now, should the project have moved


@dataclass(frozen=True)
class Run:
    """A run as the SuperLink knows it.

    Attributes:
        number: The SuperLink's.
        status: ``pending``, ``starting``, ``running`` or ``finished``.
        outcome: ``completed``, ``failed`` or ``stopped`` once it is finished.
        details: Why it failed.
        started: When it was handed over, ISO 8601.
        app: Name of its app.
        begun: When its ServerApp began, ISO 8601; empty before.
    """

    number: int
    status: str
    outcome: str
    details: str
    started: str
    app: str = NAME
    begun: str = ""

    @property
    def finished(self) -> bool:
        """Whether nothing of it is to come."""
        return self.status == Status.FINISHED


@dataclass(frozen=True)
class FederationServer:
    """The server of one project.

    Attributes:
        root: Project folder.
        security: Where the federation's keys are, below it.
    """

    root: Path
    security: Path = SECURITY

    @property
    def places(self) -> Places:
        """The federation's keys and its list of sites."""
        return Places(self.root / self.security)

    @property
    def registry(self) -> SiteRegistry:
        """Which sites belong to the federation."""
        return SiteRegistry(self.places.registry)

    @property
    def services(self) -> Services:
        """Of the project, others than the server's among them."""
        return Services(self.root / RUN)

    @property
    def gateway(self) -> GatewayConfig:
        """Where the gateway listens, and the SuperLink behind it.

        Raises:
            StageError: The server was never started here.
        """
        file = self.root / GATEWAY_FILE
        if not file.exists():
            raise StageError(f"there is no {file}: `zk0 server start` writes it, and starts the server")
        return GatewayConfig.read(file)

    @property
    def address(self) -> str:
        """``HOST:PORT`` of the SuperLink, on loopback."""
        return urlsplit(self.gateway.upstream).netloc

    def start(self, wait_s: float = _WAIT_S, **settings: Any) -> list[str]:
        """Start what does not run yet, and have the SuperLink know the admitted sites.

        Args:
            wait_s: How long each may take to answer.
            settings: Of the gateway, see :class:`GatewayConfig`; None leaves what ``gateway.yaml`` says.

        Returns:
            Names of what was started.

        Raises:
            StageError: The keys are missing, or a service does not come up; what was started is stopped again.
        """
        self._check_keys()
        self._configure(**settings)
        services, started = self.services, []
        gateway = [sys.executable, "-m", "zk0.network.gateway", "--config", str(self.root / GATEWAY_FILE)]
        try:
            for name, command, ready, after in (
                (SUPERLINK, self._superlink(), lambda: self.answers(f"https://{self.address}"), []),
                ("superexec", self._superexec(), lambda: True, [urlsplit(self.gateway.upstream).port or 0]),
                ("gateway", gateway, lambda: self.answers(self.gateway_url), []),
            ):
                if name not in services.running():
                    # A ServerApp whose SuperExec died ends by itself, and says so, which a killed one could not.
                    outlived = name == "superexec"
                    services.launch(name, command, self._environment(), self.root, after, outlived)
                    started.append(name)
                services.await_ready(name, ready, wait_s)
            self.sync()
            if {SUPERLINK, "superexec"} & set(started):
                interrupt(self)  # their ServerApp went with the services
        except BaseException:  # Ctrl-C among them
            services.stop([name for name in NAMES if name in started])
            raise
        return started

    def stop(self, wait_s: float = 20.0) -> list[str]:
        """Stop the services, with whatever they started; a run in progress can be taken up again.

        Returns:
            Names of those that were running.
        """
        return self.services.stop(NAMES, wait_s)

    def sync(self) -> list[str]:
        """Have the SuperLink know the admitted sites' keys and no others; see :func:`register_sites`."""
        with self.control() as client:
            return register_sites(self.registry, client)

    def control(self) -> Any:
        """A connection to the SuperLink's Control API; see :func:`zk0.network.server.control.control`."""
        token = read_operator_token(self.places.operator_token)
        return control(self.address, self.authority, token)

    @property
    def authority(self) -> Path:
        """The authority's certificate."""
        return self.places.authority / "ca.pem"

    @property
    def gateway_url(self) -> str:
        """The gateway, as this machine itself reaches it."""
        host = self.gateway.host
        return f"https://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{self.gateway.port}"

    def answers(self, url: str) -> bool:
        """Whether a service is well, by its health address."""
        context = ssl.create_default_context(cafile=str(self.authority))
        try:
            return httpx.get(f"{url}/health", verify=context, timeout=3, trust_env=False).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def _check_keys(self) -> None:
        if not self.places.registry.exists():
            raise StageError(
                f"there are no keys in {self.places.folder}: `zk0 security init --host NAME` makes them, where NAME is "
                "how sites reach this machine"
            )

    def _configure(self, **settings: Any) -> None:
        """Write ``gateway.yaml``, or change it where something else is asked for."""
        file, given = self.root / GATEWAY_FILE, {name: value for name, value in settings.items() if value is not None}
        known = GatewayConfig.read(file) if file.exists() else None
        limits = known.model_dump(exclude=_OWN_FILES) if known else {}
        wanted = GatewayConfig.of(self.places, **(limits | given))
        if wanted != known:
            wanted.write(file)

    def _environment(self) -> dict[str, str]:
        """Of all services: Flower's own folder is private, and nothing is installed because an app says so."""
        home = private_folder(self.root / RUN / "flower")
        return own_environment(FLWR_HOME=str(home), FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION="1")

    def _superlink(self) -> list[str]:
        folder, host = self.places.authority / SUPERLINK, urlsplit(self.gateway.upstream)
        database = private_folder(self.root / RUN / "superlink") / "state.db"  # updates pass through it
        options = {
            "--operator-token": self.places.operator_token,
            "--host": "127.0.0.1",
            "--port": host.port,
            "--database": database,
            "--ssl-ca-certfile": self.authority,
            "--ssl-certfile": folder / "server.pem",
            "--ssl-keyfile": folder / "server.key",
            "--isolation": "process",
            "--superexec-auth-secret-file": self.places.superexec_secret,
        }
        words = [str(word) for option in options.items() for word in option]
        return [sys.executable, "-m", "zk0.network.server.superlink", "--enable-supernode-auth", *words]

    def _superexec(self) -> list[str]:
        words = ["--runtime-api-address", self.address, "--root-certificates", str(self.authority)]
        words += ["--superexec-auth-secret-file", str(self.places.superexec_secret)]
        return [sys.executable, "-m", "zk0.network.superexec", *words]


def runs_of(server: FederationServer, number: int | None = None) -> list[Run]:
    """The runs that the SuperLink knows, the last first.

    Args:
        server: Whose.
        number: Only this one.
    """
    request = control_pb2.ListRunsRequest() if number is None else control_pb2.ListRunsRequest(run_id=number)
    with server.control() as client:
        found = client.ListRuns(request).run_dict.values()
        runs = [
            Run(
                number=r.run_id,
                status=r.status.status,
                outcome=r.status.sub_status,
                details=r.status.details,
                started=r.pending_at,
                app=r.fab_id.split("/")[-1],
                begun=r.running_at,
            )
            for r in found
        ]
    return sorted(runs, key=lambda run: run.started, reverse=True)


def present_nodes(server: FederationServer) -> dict[int, str]:
    """By node, since when it is there; those that are away are not listed."""
    with server.control() as client:
        nodes = client.ListNodes(control_pb2.ListNodesRequest()).nodes_info
    return {node.node_id: node.last_activated_at for node in nodes if node.status == NodeStatus.ONLINE}


def halt(server: FederationServer, number: int | None = None) -> list[int]:
    """Stop a run, or every one that is in progress, for good; complete rounds are saved.

    Returns:
        Numbers of those that were stopped.
    """
    wanted = wanted_run(server.root)
    if wanted is not None and number in (None, wanted.number, *wanted.earlier):
        forget_wanted(server.root)
    return _stop(server, number)


def interrupt(server: FederationServer) -> list[int]:
    """Stop what the SuperLink takes for runs in progress, though nobody wants them stopped: their ServerApp is gone.

    Returns:
        Numbers of those that were stopped.
    """
    if (wanted := wanted_run(server.root)) is not None:
        replace(wanted, stopped=True).write(server.root)
    return _stop(server)


def _stop(server: FederationServer, number: int | None = None) -> list[int]:
    busy = [run.number for run in runs_of(server, number) if not run.finished]
    with server.control() as client:
        for one in busy:
            client.StopRun(control_pb2.StopRunRequest(run_id=one))
    return busy
