"""The operator's steps when a site joins: its key goes into the list, and its invitation is written."""

from __future__ import annotations

from pathlib import Path

from zk0.network.security.authority import Authority
from zk0.network.security.files import Places
from zk0.network.security.invitation import Invitation, check_address
from zk0.network.security.keys import PublicKey
from zk0.network.security.site_registry import SiteRegistry


def admit_site(folder: Path, name: str, public_key: str | Path, server: str, out: Path | None = None) -> Path:
    """Admit a site and write its invitation.

    Args:
        folder: The federation's security folder.
        name: As params would name it.
        public_key: Its file, or its one line.
        server: ``HOST:PORT`` of the gateway.
        out: Where the invitation goes; into the folder's ``invitations/`` by default.

    Returns:
        The invitation's file.

    Raises:
        StageError: Something of it cannot be; then the site is not admitted.
    """
    registry, authority, key = _checked(folder, public_key, server)
    registry.admit(name, key)
    return _write(folder, registry, authority, name, server, out)


def rotate_site(folder: Path, name: str, public_key: str | Path, server: str, out: Path | None = None) -> Path:
    """Give a site a new key and write its new invitation; see :func:`admit_site`."""
    registry, authority, key = _checked(folder, public_key, server)
    registry.rotate(name, key)
    return _write(folder, registry, authority, name, server, out)


def invite_site(folder: Path, name: str, server: str, out: Path | None = None) -> Path:
    """Write an admitted site's invitation again; see :func:`admit_site`."""
    places = Places(folder)
    return _write(folder, SiteRegistry(places.registry), Authority.open(places.authority), name, server, out)


def _checked(folder: Path, public_key: str | Path, server: str) -> tuple[SiteRegistry, Authority, PublicKey]:
    """All that could fail, before anything is changed."""
    places = Places(folder)
    key = PublicKey.read(public_key)
    check_address(server)
    authority = Authority.open(places.authority)
    authority.key()
    return SiteRegistry(places.registry), authority, key


def _write(
    folder: Path, registry: SiteRegistry, authority: Authority, name: str, server: str, out: Path | None
) -> Path:
    path = out or Places(folder).invitation(name)
    site = registry.site(name)
    Invitation.issue(authority, registry.read().federation, server, site).write(path)
    return path
