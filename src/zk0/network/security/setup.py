"""Security set-up for a deployment: made where there is nothing, and otherwise checked and left as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zk0.errors import StageError
from zk0.network.security.authority import WARN_DAYS, Authority, days_left
from zk0.network.security.files import GATEWAY, SUPERLINK, Places, initialise, read_operator_token
from zk0.network.security.site_registry import SiteRegistry
from zk0.private_files import private_folder, read_private


@dataclass(frozen=True)
class SecuritySetUp:
    """What a federation's security is.

    Attributes:
        places: Its files.
        made: Whether they were made just now.
        fingerprint: Of the authority, for the owners to compare.
        told: What is there, a sentence each.
        warnings: What will not stay so, a sentence each, with what to do.
    """

    places: Places
    made: bool
    fingerprint: str
    told: tuple[str, ...]
    warnings: tuple[str, ...]


def set_up_security(folder: Path, hosts: Sequence[str], federation: str) -> SecuritySetUp:
    """Make authority, certificates, token and list of sites, or check those that are there; they are never replaced.

    Args:
        folder: Where they are.
        hosts: Names and addresses by which sites reach the gateway.
        federation: Its name.

    Raises:
        StageError: Something there is damaged, has expired, is open to others, or is for another federation or host.
    """
    made = not (folder.exists() and any(folder.iterdir()))
    places = initialise(folder, hosts, federation) if made else Places(folder)
    private_folder(folder)
    authority = Authority.open(places.authority)
    servers = {name: authority.server(name) for name in (GATEWAY, SUPERLINK)}
    if missing := sorted(set(hosts) - set(servers[GATEWAY].hosts)):
        every = " ".join(f"--host {host}" for host in hosts)
        raise StageError(
            f"the gateway's certificate is not for {', '.join(missing)}, which deployment.yaml names; "
            f"`zk0 security rotate {every}` issues one, and sites need `zk0 site invite` where their address changes"
        )
    read_operator_token(places.operator_token)
    read_private(places.superexec_secret, "`zk0 security init` makes one")
    sites = SiteRegistry(places.registry).read()
    if sites.federation != federation:
        raise StageError(
            f"{places.registry} is of federation '{sites.federation}', and deployment.yaml names '{federation}'; use "
            "the same name, or another folder for another federation"
        )
    ends = {"authority": authority.certificate, **{name: one.certificate for name, one in servers.items()}}
    days = {name: days_left(certificate) for name, certificate in ends.items()}
    soon = [f"the certificate of {name} ends in {left} days" for name, left in days.items() if left < WARN_DAYS]
    admitted = sum(site.admitted for site in sites.sites)
    return SecuritySetUp(
        places,
        made,
        authority.fingerprint,
        (
            f"{'made' if made else 'found'} {folder}, which nobody else can enter",
            *(f"certificate of {name} for {left} days" for name, left in days.items()),
            f"{admitted} sites admitted, {len(sites.sites) - admitted} revoked",
        ),
        tuple(f"{text}; `zk0 security rotate` issues new ones" for text in soon),
    )
