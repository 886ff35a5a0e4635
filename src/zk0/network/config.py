"""deployment.yaml: what runs on the server's machine of a federation, typed and checked when it is read."""

from __future__ import annotations

import importlib.resources
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from zk0.errors import StageError
from zk0.files import write_text
from zk0.settings import Section, SettingsFile, parse_settings
from zk0.words import nearest_hint

CONFIG = Path("deployment.yaml")
INIT = "`zk0 deploy init --host NAME` writes one, explained"

Group = Literal["mlflow", "prefect", "federation", "monitor"]

# In the order in which they are started; they are stopped the other way round.
GROUPS: dict[Group, tuple[str, ...]] = {
    "mlflow": ("mlflow",),
    "prefect": ("prefect-server", "prefect-worker"),
    "federation": ("superlink", "superexec", "gateway"),
    "monitor": ("monitor",),
}

# Whatever is of no use without another is started anew with it.
DEPENDENTS = {"superlink": ("superexec",)}


class Ports(Section):
    """TCP ports of what is started here; all but the gateway's are on loopback."""

    gateway: int = Field(9443, ge=1, lt=65536)
    superlink: int = Field(8000, ge=1, lt=65536)
    gateway_metrics: int = Field(9464, ge=1, lt=65536)
    monitor: int = Field(9465, ge=1, lt=65536)


class Resources(Section):
    """What processes of zk0 may take of this machine.

    Attributes:
        gpu_share: Of a GPU's memory, for one process.
        memory_reserve_bytes: Left to everything else.
        disk_reserve_bytes: Left free.
    """

    gpu_share: float = Field(1.0, gt=0, le=1)
    memory_reserve_bytes: int = Field(1_000_000_000, ge=0)
    disk_reserve_bytes: int = Field(2_000_000_000, ge=0)


class Alerts(Section):
    """What is worth telling, and to whom.

    Attributes:
        webhook: Gets each alert as JSON: an address, or ``file:PATH`` of a private file that holds it.
        events: Whether Prefect is told.
        round_s: Longest time without a round's end while a run is on.
        site_away_s: Longest silence of an admitted site.
        certificate_days: Shortest time that a certificate may have left.
        disk_free_bytes: Least free disk.
        every_s: Seconds between two looks.
    """

    webhook: str | None = None
    events: bool = True
    round_s: float = Field(3600.0, gt=0)
    site_away_s: float = Field(300.0, gt=0)
    certificate_days: int = Field(30, ge=0)
    disk_free_bytes: int = Field(5_000_000_000, ge=0)
    every_s: float = Field(15.0, gt=0)

    @field_validator("webhook")
    @classmethod
    def _webhook_is_an_address(cls, webhook: str | None) -> str | None:
        if webhook is not None and not webhook.startswith("file:"):
            _address(webhook)
        return webhook


class DeploymentConfig(SettingsFile):
    """Everything in deployment.yaml.

    Attributes:
        federation: Its name.
        hosts: By which sites reach this machine.
        listen: Address on which the gateway takes requests.
        services: What is started here.
        ports: Of these.
        mlflow_url: MLflow's server, here or elsewhere.
        prefect_url: Prefect's server, here or elsewhere.
        resources: What may be taken of this machine.
        resume: Whether a run whose SuperLink, SuperExec or ServerApp died is taken up again.
        alerts: What is told to whom.
    """

    MISSING = f"{{path}} is missing: it says what runs on this machine; {INIT}"

    federation: str = Field("zk0", min_length=1)
    hosts: tuple[str, ...] = Field(("localhost",), min_length=1)
    listen: str = "0.0.0.0"
    services: tuple[Group, ...] = ("mlflow", "prefect", "federation", "monitor")
    ports: Ports = Ports()
    mlflow_url: str | None = "http://127.0.0.1:5000"
    prefect_url: str | None = "http://127.0.0.1:4200"
    resources: Resources = Resources()
    resume: bool = True
    alerts: Alerts = Alerts()

    @field_validator("mlflow_url", "prefect_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        return None if url is None else _address(url)

    @model_validator(mode="after")
    def _what_is_started_here_is_on_loopback(self) -> DeploymentConfig:
        """Neither MLflow's nor Prefect's server asks who is there."""
        for group, name, url in (
            ("mlflow", "mlflow_url", self.mlflow_url),
            ("prefect", "prefect_url", self.prefect_url),
        ):
            if group not in self.services:
                continue
            parts = urlsplit(url or "")
            if parts.scheme != "http" or parts.port is None or not is_loopback(parts.hostname or "") or parts.path:
                raise ValueError(
                    f"{name} must be http://127.0.0.1:PORT while services name {group}: it asks nobody for a password, "
                    f"and is started on loopback only (got {url!r})"
                )
        return self

    @model_validator(mode="after")
    def _no_port_is_taken_twice(self) -> DeploymentConfig:
        used = self.ports.model_dump()
        used |= {name: port_of(url) for name, url in self.local_urls().items()}
        for name, port in used.items():
            if other := next((o for o, p in used.items() if p == port and o != name), None):
                raise ValueError(f"{name} and {other} both want port {port}; give each its own")
        return self

    def local_urls(self) -> dict[str, str]:
        """Addresses of MLflow's and Prefect's servers where they are started here."""
        urls = {"mlflow": self.mlflow_url, "prefect": self.prefect_url}
        return {name: url for name, url in urls.items() if url is not None and name in self.services}

    @property
    def superlink(self) -> str:
        """``HOST:PORT`` of the SuperLink."""
        return f"127.0.0.1:{self.ports.superlink}"


def service_names() -> tuple[str, ...]:
    """All that deployment.yaml can have started, in the order in which they are started."""
    return tuple(name for names in GROUPS.values() for name in names)


def group_of(name: str) -> Group:
    """The group that a service or a group's name belongs to.

    Raises:
        StageError: There is no such service; names the nearest.
    """
    for group, names in GROUPS.items():
        if name == group or name in names:
            return group
    raise StageError(f"there is no service '{name}'{nearest_hint(name, (*GROUPS, *service_names()))}")


def members(name: str) -> tuple[str, ...]:
    """The services that a name stands for: one, or those of a group.

    Raises:
        StageError: There is no such service; names the nearest.
    """
    group = group_of(name)
    return GROUPS[group] if name == group else (name,)


def port_of(url: str) -> int:
    """The port of an address that has one."""
    return urlsplit(url).port or 0


def write_default(path: Path, hosts: Sequence[str]) -> None:
    """Write the default file, explained, for the given hosts.

    Raises:
        StageError: There is one already, or no host was named.
    """
    if path.exists():
        raise StageError(f"{path} is there already; edit it, or move it away to begin anew")
    if not hosts:
        raise StageError("name at least one host by which sites reach this machine: --host robots.example.org")
    shipped = importlib.resources.files("zk0.network").joinpath("deployment.yaml").read_text()
    text = shipped.replace("hosts: [localhost]", f"hosts: [{', '.join(hosts)}]")
    DeploymentConfig.parse(parse_settings(text, str(path)), str(path))
    write_text(path, text)


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address, as https://HOST:PORT")
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, and no other machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
