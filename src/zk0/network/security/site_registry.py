"""Which sites belong to a federation: the one list that gateway, server and operator go by, in a file."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from zk0.errors import StageError
from zk0.files import BadFileError, read_json, write_json
from zk0.network.security.keys import PublicKey
from zk0.network.security.sites import Site, Sites, now, refuse_known, with_key
from zk0.settings import explained_in_one_line
from zk0.words import check_site_name, nearest_hint

_LOCK_S = 30.0


class SiteRegistry:
    """The list of a federation's sites, in one JSON file.

    Every call reads the file anew, and a change is written in one step under a lock, so that commands, gateway
    and server may use it side by side.

    Example:
        >>> registry = SiteRegistry.create(Path("security/sites.json"), "arms")
        >>> registry.admit("kitchen", "ecdsa-sha2-nistp384 AAAA...").partition
        0
        >>> registry.revoke("kitchen", "laptop stolen").state
        'revoked'
    """

    def __init__(self, path: Path) -> None:
        """Use the list at ``path``; see :meth:`create` to begin one."""
        self.path = path

    @classmethod
    def create(cls, path: Path, federation: str) -> SiteRegistry:
        """Begin a list without sites.

        Raises:
            StageError: There is one already.
        """
        if path.exists():
            raise StageError(f"{path} is there already; another federation needs another file")
        write_json(path, Sites(federation=federation).model_dump(mode="json"))
        return cls(path)

    def read(self) -> Sites:
        """The list as it is now.

        Raises:
            StageError: It is missing, damaged, or others may write to it.
        """
        try:
            if self.path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise StageError(
                    f"{self.path} decides who may take part, and others on this machine may change it; "
                    f"look through it, then `chmod 644 {self.path}`"
                )
            return Sites.model_validate(read_json(self.path))
        except FileNotFoundError as error:
            raise StageError(f"{self.path} is missing; `zk0 security init --host NAME` begins it") from error
        except (ValidationError, BadFileError) as error:
            told = explained_in_one_line(error, Sites) if isinstance(error, ValidationError) else error
            raise StageError(f"{self.path} is no list of sites: {told}; bring back a copy of it") from error

    def sites(self) -> tuple[Site, ...]:
        """All sites, revoked ones too, by partition."""
        return tuple(sorted(self.read().sites, key=lambda site: site.partition))

    def site(self, name: str) -> Site:
        """One site.

        Raises:
            StageError: There is none of that name; names the nearest.
        """
        return _named(self.read(), name, self.path)

    def of_node(self, node_id: int) -> Site | None:
        """The admitted site that the SuperLink knows by this number; None for every other."""
        return next((site for site in self.read().sites if site.admitted and site.node_id == node_id), None)

    def admit(self, name: str, public_key: str | Path | PublicKey, why: str = "") -> Site:
        """Let a site take part: a new one, or one that was revoked, which must bring a new key.

        Args:
            name: As params would name it.
            public_key: Its key: a file, its one line, or parsed.
            why: What is to be remembered of it.

        Raises:
            StageError: The name is taken or none, or the key is another site's, was retired, or is of another kind.
        """
        key = _parsed(public_key)

        def change(sites: Sites) -> Site:
            present = sites.named(name)
            if present is not None and present.admitted:
                raise StageError(
                    f"there is a site '{name}' already, with the key {present.fingerprint}; choose another name, or "
                    f"give it the new key with `zk0 site rotate {name} PUBKEY`"
                )
            refuse_known(sites, key)
            if present is None:
                try:
                    check_site_name(name)
                except ValueError as error:
                    raise StageError(str(error)) from error
                number = max((site.partition for site in sites.sites), default=-1) + 1
                return Site(
                    name=name,
                    partition=number,
                    public_key=key.line,
                    fingerprint=key.fingerprint,
                    since=now(),
                    why=why,
                )
            return with_key(present, key, why or "admitted again", present.why)

        return self._change(change)

    def revoke(self, name: str, why: str) -> Site:
        """Shut a site out: its key is refused from the next request on.

        Raises:
            StageError: There is none of that name, it is revoked already, or no reason is given.
        """
        if not why.strip():
            raise StageError(f"say why site {name} is revoked: --why TEXT; the list keeps it")

        def change(sites: Sites) -> Site:
            site = _named(sites, name, self.path)
            if not site.admitted:
                raise StageError(f"site {name} was revoked on {site.since:%d %B %Y} already: {site.why}")
            return site.model_copy(update={"state": "revoked", "since": now(), "why": why.strip()})

        return self._change(change)

    def rotate(self, name: str, public_key: str | Path | PublicKey, why: str = "key replaced") -> Site:
        """Give a site a new key; name and partition stay, and the old key is refused from the next request on.

        Raises:
            StageError: There is none of that name, it is revoked, or the key is known already.
        """
        key = _parsed(public_key)

        def change(sites: Sites) -> Site:
            site = _named(sites, name, self.path)
            if not site.admitted:
                raise StageError(f"site {name} is revoked ({site.why}); `zk0 site admit {name} PUBKEY` admits it again")
            refuse_known(sites, key)
            return with_key(site, key, why, why)

        return self._change(change)

    def registered(self, name: str, node_id: int | None) -> Site:
        """Remember by which number the SuperLink knows a site; None where it knows it no more.

        Raises:
            StageError: There is none of that name, or the number is another site's.
        """

        def change(sites: Sites) -> Site:
            other = next((s for s in sites.sites if node_id is not None and s.node_id == node_id), None)
            if other is not None and other.name != name:
                raise StageError(f"node {node_id} is site {other.name} already, and cannot be {name} too")
            return _named(sites, name, self.path).model_copy(update={"node_id": node_id})

        return self._change(change)

    def _change(self, change: Callable[[Sites], Site]) -> Site:
        """Read the list, put one site into it and write it, while nobody else does."""
        with self._locked():
            sites = self.read()
            site = change(sites)
            others = tuple(other for other in sites.sites if other.name != site.name)
            together = sorted((*others, site), key=lambda one: one.partition)
            whole = Sites(federation=sites.federation, sites=tuple(together))
            write_json(self.path, whole.model_dump(mode="json"))
        return site

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with FileLock(self.path.with_name(f"{self.path.name}.lock"), timeout=_LOCK_S):
                yield
        except Timeout as error:
            raise StageError(
                f"{self.path} is being changed by another command for {_LOCK_S:.0f} s; try again"
            ) from error


def _parsed(public_key: str | Path | PublicKey) -> PublicKey:
    return public_key if isinstance(public_key, PublicKey) else PublicKey.read(public_key)


def _named(sites: Sites, name: str, path: Path) -> Site:
    site = sites.named(name)
    if site is None:
        known = [one.name for one in sites.sites]
        hint = nearest_hint(name, known) if known else "; it has no sites yet"
        raise StageError(f"there is no site '{name}' in {path}{hint}")
    return site
