"""Flower's services and zk0's gateway as processes on 127.0.0.1, stopped at the end whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from zk0.network.security.files import Places, read_operator_token
from zk0.network.security.keys import NodeKey
from zk0.network.security.sites import Site, SiteRegistry
from zk0.network.server.control import control, register_sites

BIN = Path(sys.executable).parent
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
OFFLINE = {"FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1"}


def free_port() -> int:
    """A port on 127.0.0.1 that nothing uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until(true: Callable[[], Any], what: str, seconds: float = 180.0) -> Any:
    """Wait for something to become true; fails the test, naming it, when it does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.05)
    return pytest.fail(f"{what} did not happen within {seconds:.0f} s")


@dataclass
class Service:
    """A process with a log."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def text(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace")

    def stop(self, seconds: float = 20.0) -> int:
        """SIGTERM, and SIGKILL for what is left of it and its children."""
        family: list[psutil.Process] = []
        if self.process.poll() is None:
            process = psutil.Process(self.process.pid)
            family = [process, *process.children(recursive=True)]
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for survivor in psutil.wait_procs(family, timeout=5)[1]:
            survivor.kill()
        return int(self.process.returncode)


@contextmanager
def service(
    words: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Service]:
    """Run a command in the background, its output in ``log``."""
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(word) for word in words],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PATH": path, **QUIET, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
    running = Service(process, log)
    try:
        yield running
    finally:
        running.stop()


def healthy(url: str, authority: Path) -> bool:
    """Whether a server answers at its health address."""
    try:
        return httpx.get(f"{url}/health", verify=_trusting(authority), timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _trusting(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority))


@contextmanager
def fleet(address: str, authority: Path, key: NodeKey | None) -> Iterator[FleetHttpClient]:
    """The client that Flower's SuperNode itself uses, signing with a site's key, or not at all."""
    interceptors: list[Any] = [RuntimeVersionHttpInterceptor(component_name="SuperNode")]
    if key is not None:
        private = key.private()
        interceptors.append(NodeAuthHttpInterceptor(private, private.public_key()))
    with FleetHttpClient.from_server_address(address, False, authority.read_bytes(), interceptors) as client:
        yield client


def signed_headers(key: NodeKey) -> dict[str, str]:
    """The headers that Flower's SuperNode adds to one request."""
    from flwr.supercore.protobuf.client import ProtobufRequestContext
    from google.protobuf.empty_pb2 import Empty

    private = key.private()
    request = httpx.Request("POST", "https://127.0.0.1")
    NodeAuthHttpInterceptor(private, private.public_key()).intercept(
        ProtobufRequestContext("", Empty(), request), lambda context: httpx.Response(200, request=context.request)
    )
    return {name: value for name, value in request.headers.items() if name.startswith("flwr-")}


@dataclass
class Federation:
    """A running SuperLink and its gateway."""

    root: Path
    places: Places
    superlink_port: int
    gateway_port: int
    metrics_port: int
    superlink: Service
    gateway: Service

    @property
    def authority(self) -> Path:
        return self.places.authority / "ca.pem"

    @property
    def registry(self) -> SiteRegistry:
        return SiteRegistry(self.places.registry)

    @property
    def gateway_address(self) -> str:
        return f"127.0.0.1:{self.gateway_port}"

    @property
    def superlink_address(self) -> str:
        return f"127.0.0.1:{self.superlink_port}"

    def control(self, token: str | None = None) -> Any:
        """A connection to Control, with the operator's token unless another is given."""
        known = read_operator_token(self.places.operator_token)
        return control(self.superlink_address, self.authority, known if token is None else token)

    def admitted(self, name: str) -> tuple[NodeKey, Site]:
        """A new site, registered with the SuperLink."""
        key = NodeKey.create(self.root / "sites" / name, name)
        self.registry.admit(name, key.public)
        with self.control() as client:
            register_sites(self.registry, client)
        return key, self.registry.site(name)


def superlink_words(places: Places, port: int, database: Path) -> list[str | Path]:
    """The command that starts the SuperLink with its doors closed."""
    certificate = places.authority / "superlink"
    return [
        *(sys.executable, "-m", "zk0.network.server.superlink", "--operator-token", places.operator_token),
        *("--host", "127.0.0.1", "--port", str(port), "--database", database, "--enable-supernode-auth"),
        *("--ssl-ca-certfile", places.authority / "ca.pem"),
        *("--ssl-certfile", certificate / "server.pem", "--ssl-keyfile", certificate / "server.key"),
        *("--isolation", "process", "--superexec-auth-secret-file", places.superexec_secret),
    ]
