"""One federation for all tests of a session: authority, SuperLink behind its gateway, and the keys of its sites."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from network_services import OFFLINE, Federation, Service, free_port, healthy, service, superlink_words, wait_until

from zk0.network.gateway.config import GatewayConfig
from zk0.network.security.authority import Authority
from zk0.network.security.files import initialise
from zk0.network.security.keys import NodeKey


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """SuperLink and gateway, with small limits; tests admit sites of their own."""
    root = tmp_path_factory.mktemp("federation")
    places = initialise(root / "security", ["127.0.0.1"], "arms")
    superlink_port, gateway_port, metrics_port = free_port(), free_port(), free_port()
    config = GatewayConfig.of(
        places,
        host="127.0.0.1",
        port=gateway_port,
        upstream=f"https://127.0.0.1:{superlink_port}",
        metrics_port=metrics_port,
        object_limit_bytes=8 << 20,
        head_s=1.5,
        pause_s=1.5,
        requests_burst=4000,
        connections_per_address=40,
        log_lines_per_minute=1000,
    )
    config.write(root / "gateway.yaml")
    with ExitStack() as stack:
        superlink = stack.enter_context(
            service(
                superlink_words(places, superlink_port, root / "superlink.db"),
                root / "superlink.log",
                {"FLWR_HOME": str(root / "superlink-home"), **OFFLINE},
            )
        )
        words = [sys.executable, "-m", "zk0.network.gateway", "--config", root / "gateway.yaml"]
        gateway = stack.enter_context(service(words, root / "gateway.log"))
        made = Federation(root, places, superlink_port, gateway_port, metrics_port, superlink, gateway)
        url = f"https://{made.gateway_address}"
        wait_until(lambda: healthy(url, made.authority), f"health of SuperLink and gateway (see {root})")
        yield made


@pytest.fixture
def https(federation: Federation) -> Iterator[httpx.Client]:
    """A stranger who has nothing but the authority's certificate."""
    context = ssl.create_default_context(cafile=str(federation.authority))
    with httpx.Client(base_url=f"https://{federation.gateway_address}", verify=context, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def kitchen(federation: Federation) -> NodeKey:
    """An admitted site that no test changes."""
    return federation.admitted("kitchen")[0]


@pytest.fixture(scope="session")
def sites_home(prepared: Path, params_content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two sites; its path is longer than a socket's address may be."""
    from site_trainers import lay_out_site

    return lay_out_site(prepared, tmp_path_factory.mktemp("sites") / ("a-long-name-" * 8), params_content)


@pytest.fixture(scope="session")
def trainers(sites_home: Path) -> Iterator[list[Service]]:
    """The two sites' trainers, for tests that leave them as they are."""
    from site_trainers import trainer

    with trainer(sites_home, 0) as first, trainer(sites_home, 1) as second:
        yield [first, second]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority with nothing issued."""
    return Authority.create(tmp_path / "authority", "arms")
