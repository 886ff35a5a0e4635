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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zk0.errors import StageError
from zk0.files import new_folder
from zk0.network.security.authority import Authority, ServerCertificate
from zk0.network.security.site_registry import SiteRegistry
from zk0.private_files import private_folder, read_private, write_private

SECURITY = Path("security")
# Every service on the server's own machine finds the others by these.
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# The certificate that sites meet, and the one that only the gateway and the operator's commands meet.
GATEWAY, SUPERLINK = "gateway", "superlink"
_LEAST_TOKEN = 32


@dataclass(frozen=True)
class Places:
    """The files of one federation's security.

    Attributes:
        folder: All of them are below it.
    """

    folder: Path = SECURITY

    @property
    def authority(self) -> Path:
        """Folder of the authority."""
        return self.folder / "authority"

    @property
    def operator_token(self) -> Path:
        """What starting a run needs."""
        return self.folder / "operator.token"

    @property
    def superexec_secret(self) -> Path:
        """For Flower's `--superexec-auth-secret-file`, of SuperLink and SuperExec."""
        return self.folder / "superexec.secret"

    @property
    def registry(self) -> Path:
        """Which sites belong to the federation."""
        return self.folder / "sites.json"

    @property
    def flower_home(self) -> Path:
        """The operator's FLWR_HOME: with it, and only with it, `flwr` commands are let in."""
        return self.folder / "flower"

    def invitation(self, site: str) -> Path:
        """What a site was sent."""
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
