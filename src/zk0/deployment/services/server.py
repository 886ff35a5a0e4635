"""The federation's server: SuperLink on loopback, gateway on the network."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import httpx

from zk0.deployment.config import DeploymentConfig
from zk0.deployment.gateway.config import GatewayConfig
from zk0.deployment.local import RUN
from zk0.deployment.security.places import SECURITY, Places
from zk0.deployment.services.process import Services, own_environment

_WAIT_S = 60.0
DATABASE = RUN / "superlink.db"
GATEWAY_CONFIG = RUN / "gateway.yaml"


def start_server(root: Path, config: DeploymentConfig) -> None:
    """Start what of the two does not run, and wait until both answer.

    Raises:
        StageError: A file is missing or not what it must be, or one does not come up.
    """
    places = Places(root / SECURITY)
    services = Services(root / RUN)
    running = services.running()
    if "superlink" not in running:
        _launch_superlink(services, root, places, config)
    if "gateway" not in running:
        _launch_gateway(services, root, places, config)
    services.await_ready("superlink", lambda: healthy(config.ports.superlink, places), _WAIT_S)
    services.await_ready("gateway", lambda: healthy(config.ports.gateway, places), _WAIT_S)


def _launch_superlink(services: Services, root: Path, places: Places, config: DeploymentConfig) -> None:
    certificate = places.authority / "superlink"
    services.launch(
        "superlink",
        [
            *(sys.executable, "-m", "zk0.deployment.superlink", "--operator-token", str(places.operator_token)),
            *("--host", "127.0.0.1", "--port", str(config.ports.superlink), "--database", str(root / DATABASE)),
            *("--enable-supernode-auth", "--ssl-ca-certfile", str(places.authority / "ca.pem")),
            *("--ssl-certfile", str(certificate / "server.pem"), "--ssl-keyfile", str(certificate / "server.key")),
            *("--isolation", "process", "--superexec-auth-secret-file", str(places.superexec_secret)),
        ],
        own_environment(FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION="1"),
        root,
    )


def _launch_gateway(services: Services, root: Path, places: Places, config: DeploymentConfig) -> None:
    GatewayConfig.of(
        places,
        host=config.listen,
        port=config.ports.gateway,
        upstream=f"https://127.0.0.1:{config.ports.superlink}",
        metrics_port=config.ports.gateway_metrics,
    ).write(root / GATEWAY_CONFIG)
    words = [sys.executable, "-m", "zk0.deployment.gateway", "--config", str(root / GATEWAY_CONFIG)]
    services.launch("gateway", words, own_environment(), root)


def healthy(port: int, places: Places) -> bool:
    """Whether a port answers under a certificate of the federation's authority; the gateway passes the question on."""
    context = ssl.create_default_context(cafile=str(places.authority / "ca.pem"))
    try:
        return httpx.get(f"https://127.0.0.1:{port}/health", verify=context, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False
