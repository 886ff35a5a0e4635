"""What of the gateway may be set: one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import Field, field_validator

from zk0.files import write_text
from zk0.network.security.files import GATEWAY, Places
from zk0.settings import SettingsFile

MEBIBYTE = 1 << 20


class GatewayConfig(SettingsFile):
    """Where the gateway listens, what it goes by, and its limits.

    Attributes:
        host: Address to listen on; ``0.0.0.0`` is every IPv4 address, ``::`` every address, of this machine.
        port: Port to listen on.
        certificate: The server's certificate, PEM; a new one is taken while the gateway runs.
        key: Its private key, PEM.
        registry: The list of sites; read anew when it changes.
        upstream: The SuperLink, on loopback.
        authority: The authority's certificate, by which the SuperLink is known.
        metrics_port: Prometheus' metrics, on 127.0.0.1; 0 = none.
        object_limit_bytes: Largest request that carries a part of a message; Flower sends 5 MiB at a time.
        request_limit_bytes: Largest of any other.
        requests_per_s: From one address, on the average; Flower's node asks every 3 s and sends 2 parts at a time.
        requests_burst: From one address, at once.
        site_bytes_per_hour: What one site may send in an hour; bounds what a broken one puts on the server's disk.
        connections: Open ones, of all addresses.
        connections_per_address: Of one.
        handshake_s: Within which TLS must be agreed on.
        head_s: Within which a request's head must be there.
        idle_s: How long a connection is kept between two requests; Flower's nodes keep theirs for 5 s.
        pause_s: How long a body, or a reader of an answer, may stand still.
        least_bytes_per_s: A body that is slower on the average is refused.
        upstream_s: Within which the SuperLink must answer.
        log_lines_per_minute: Refusals told of one address for one reason; all are counted.
        shutdown_s: How long requests may take to end when the gateway is stopped.
    """

    MISSING = "{path} is missing; it says where the gateway listens and which files it uses"

    host: str = "0.0.0.0"
    port: int = Field(9443, ge=1, lt=65536)
    certificate: Path
    key: Path
    registry: Path
    upstream: str = "https://127.0.0.1:8000"
    authority: Path
    metrics_port: int = Field(0, ge=0, lt=65536)
    object_limit_bytes: int = Field(16 * MEBIBYTE, ge=6 * MEBIBYTE)
    request_limit_bytes: int = Field(MEBIBYTE // 4, ge=1024)
    requests_per_s: float = Field(100.0, gt=0)
    requests_burst: int = Field(400, ge=1)
    site_bytes_per_hour: int = Field(100_000_000_000, ge=16 * MEBIBYTE)
    connections: int = Field(512, ge=2)
    connections_per_address: int = Field(64, ge=1)
    handshake_s: float = Field(10.0, gt=0)
    head_s: float = Field(10.0, gt=0)
    idle_s: float = Field(60.0, ge=5)
    pause_s: float = Field(30.0, gt=0)
    least_bytes_per_s: int = Field(16_384, ge=1)
    upstream_s: float = Field(120.0, gt=0)
    log_lines_per_minute: int = Field(20, ge=1)
    shutdown_s: float = Field(10.0, gt=0)

    @field_validator("upstream")
    @classmethod
    def _upstream_is_this_machine(cls, upstream: str) -> str:
        parts = urlsplit(upstream)
        if parts.scheme != "https" or parts.hostname not in ("127.0.0.1", "localhost", "::1") or parts.port is None:
            raise ValueError("must be https://127.0.0.1:PORT: Control and Runtime are open to whoever reaches it")
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
            raise ValueError("must be an address without a path")
        return upstream.rstrip("/")

    @classmethod
    def of(cls, places: Places, **settings: Any) -> GatewayConfig:
        """The configuration for a federation's files, with further settings.

        Raises:
            StageError: A setting cannot be.
        """
        server = places.authority.resolve() / GATEWAY
        files = {
            "certificate": server / "server.pem",
            "key": server / "server.key",
            "registry": places.registry.resolve(),
            "authority": places.authority.resolve() / "ca.pem",
        }
        return cls.parse({**files, **settings}, "gateway")

    def write(self, path: Path) -> None:
        """Write it as YAML; there is nothing secret in it."""
        write_text(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))
