"""Where an operator keeps what secures a federation, and how it is made and renewed.

On disk::

    security/              0700
      authority/           the authority, and the certificates of gateway and SuperLink
      operator.token       0600; who has it may start runs
      superexec.secret     0600; who has it may run the ServerApp
      sites.json           which sites belong to the federation; nothing secret
      invitations/         what sites were sent; nothing secret
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from zk0.errors import StageError
from zk0.files import new_folder
from zk0.network.security.authority import WARN_DAYS, Authority, ServerCertificate, days_left
from zk0.network.security.sites import SiteRegistry
from zk0.private_files import private_folder, read_private, write_private
from zk0.steps import Outcome

SECURITY = Path("security")
# Every service on the server's own machine finds the others by these.
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# The certificate that sites meet, and the one that only the gateway and the operator's commands meet.
GATEWAY, SUPERLINK = "gateway", "superlink"
_LEAST_TOKEN = 32


class Places:
    """The files of one federation's security.

    Attributes:
        folder: All of them are below it.
        authority: Folder of the authority.
        operator_token: What starting a run needs.
        superexec_secret: For Flower's `--superexec-auth-secret-file`, of SuperLink and SuperExec.
        registry: Which sites belong to the federation.
    """

    def __init__(self, folder: Path = SECURITY) -> None:
        self.folder, self.authority = folder, folder / "authority"
        self.operator_token, self.superexec_secret = folder / "operator.token", folder / "superexec.secret"
        self.registry = folder / "sites.json"

    def invitation(self, site: str) -> Path:
        """File of the invitation that a site was sent."""
        return self.folder / "invitations" / f"{site}.json"


def initialise(folder: Path, hosts: Iterable[str], federation: str, days: int = 365) -> Places:
    """Make everything that a federation needs before its server can start.

    Args:
        folder: Where.
        hosts: Names and addresses under which sites reach the server.
        federation: Its name.
        days: How long the servers' certificates are valid; the authority is for ten years.

    Raises:
        StageError: It has been made already, or a host is none.
    """
    if folder.exists() and any(folder.iterdir()):
        raise StageError(
            f"{folder} holds a federation's keys already, and nothing overwrites them; `zk0 security rotate` renews "
            "certificates, and another federation needs another folder"
        )
    with new_folder(folder) as temporary:
        made = Places(private_folder(temporary))
        authority = Authority.create(made.authority, federation)
        authority.issue_server([*hosts, *LOOPBACK], days, GATEWAY)
        authority.issue_server(LOOPBACK, days, SUPERLINK)
        for path in (made.operator_token, made.superexec_secret):
            write_private(path, secrets.token_urlsafe(32).encode(), "it was made just now")
        SiteRegistry.create(made.registry, federation)
        temporary.replace(folder)
    return Places(folder)


def set_up_security(folder: Path, hosts: Sequence[str], federation: str) -> Outcome:
    """Make authority, certificates, token and list of sites, or check those that are there; they are never replaced.

    Args:
        folder: Where they are.
        hosts: Names and addresses by which sites reach the gateway.
        federation: Its name.

    Returns:
        Whether it was made just now, what is there, and what will not stay so; ``fingerprint`` is the authority's, for
        the owners to compare.

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
    told = (
        f"{'made' if made else 'found'} {folder}, which nobody else can enter",
        *(f"certificate of {name} for {left} days" for name, left in days.items()),
        f"{admitted} sites admitted, {len(sites.sites) - admitted} revoked",
    )
    warnings = tuple(f"{text}; `zk0 security rotate` issues new ones" for text in soon)
    return Outcome(made, told, warnings, {"fingerprint": authority.fingerprint})


def renew(folder: Path, days: int = 365, hosts: Iterable[str] | None = None) -> list[ServerCertificate]:
    """Issue both servers' certificates anew, for the same hosts unless others are named for the gateway.

    The gateway takes its new one within seconds; the SuperLink when it is next started.
    """
    authority = Authority.open(Places(folder).authority)
    named = None if hosts is None else [*hosts, *LOOPBACK]
    return [authority.rotate(days, GATEWAY, named), authority.rotate(days, SUPERLINK)]


def read_operator_token(path: Path) -> str:
    """The operator's token.

    Raises:
        StageError: It is missing, open to others, or so short that it could be guessed.
    """
    token = read_private(path, "`zk0 security init` makes one").decode(errors="replace").strip()
    if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise StageError(
            f"{path} holds no token: {_LEAST_TOKEN} or more letters and digits without blanks were expected"
        )
    return token
