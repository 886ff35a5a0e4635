"""Which sites belong to a federation: the one list that gateway, server and operator go by, in a file.

**Partitions.** A site's number is its identity in the federation's state: seeds, its codec's error, its privacy account
and the order in which updates are added up all hang on it. So the first site is 0, each new one gets the next number,
and no number is ever given to another site: one that was revoked has its own again when it is admitted again.

**Keys.** A site is known by its public key alone. A key that was replaced or revoked admits nobody any more.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import Field, model_validator

from zk0.errors import StageError
from zk0.files import BadFileError, write_json
from zk0.network.security.keys import PublicKey
from zk0.settings import Section, read_model
from zk0.words import check_site_name, nearest_hint

_LOCK_S = 30.0


class RetiredKey(Section):
    """A key that a site had before: it admits nobody."""

    fingerprint: str
    until: datetime
    why: str


class Site(Section):
    """A site of the federation.

    Attributes:
        name: As params and reports name it.
        partition: Its number, its own for ever.
        public_key: One line in OpenSSH's form.
        fingerprint: Of the key, as ssh-keygen prints it.
        node_id: Flower's number for it; None until it is registered with the SuperLink.
        state: ``admitted`` or ``revoked``.
        since: When the state last changed, UTC.
        why: For what reason.
        retired: Keys that it had before.
    """

    name: str
    partition: int = Field(ge=0)
    public_key: str
    fingerprint: str
    node_id: int | None = None
    state: Literal["admitted", "revoked"] = "admitted"
    since: datetime
    why: str = ""
    retired: tuple[RetiredKey, ...] = ()

    @property
    def admitted(self) -> bool:
        """Whether the site may take part now."""
        return self.state == "admitted"

    @property
    def pem(self) -> bytes:
        """Its public key as Flower has it."""
        return PublicKey(self.public_key).pem

    def with_key(self, key: PublicKey, why: str, retired_why: str) -> Site:
        """The same site with another key; the SuperLink does not know it by that one yet."""
        retired = RetiredKey(fingerprint=self.fingerprint, until=_now(), why=retired_why)
        key_now = {"public_key": key.line, "fingerprint": key.fingerprint, "node_id": None}
        said = {"state": "admitted", "since": _now(), "why": why, "retired": (*self.retired, retired)}
        return self.model_copy(update=key_now | said)

    @model_validator(mode="after")
    def _key_and_fingerprint_agree(self) -> Site:
        check_site_name(self.name)
        if PublicKey.parse(self.public_key, f"site {self.name}").fingerprint != self.fingerprint:
            raise ValueError(f"fingerprint of site {self.name} is not its public key's")
        return self


class Sites(Section):
    """The list as it is on disk."""

    format: Literal[1] = 1
    federation: str
    sites: tuple[Site, ...] = ()

    @model_validator(mode="after")
    def _each_is_one(self) -> Sites:
        for what in ("name", "partition", "fingerprint"):
            if len({getattr(site, what) for site in self.sites}) < len(self.sites):
                raise ValueError(f"two sites have the same {what}")
        return self

    def named(self, name: str) -> Site | None:
        """The site of that name; None where there is none."""
        return next((site for site in self.sites if site.name == name), None)

    def by_fingerprint(self) -> dict[str, tuple[Site, bool]]:
        """From a key's fingerprint to its site, and whether it is the key that the site has now."""
        found = {key.fingerprint: (site, False) for site in self.sites for key in site.retired}
        return found | {site.fingerprint: (site, True) for site in self.sites}

    def refuse_known(self, key: PublicKey) -> None:
        """A key belongs to one site, once.

        Raises:
            StageError: It is or was somebody's; says whose.
        """
        if (found := self.by_fingerprint().get(key.fingerprint)) is None:
            return
        site, current = found
        if current and site.admitted:
            raise StageError(f"the key {key.fingerprint} is site {site.name}'s; every site needs a key of its own")
        why = next((old.why for old in site.retired if old.fingerprint == key.fingerprint), site.why)
        raise StageError(
            f"the key {key.fingerprint} was site {site.name}'s and is not valid any more ({why}); have the owner make "
            "a new pair"
        )


class SiteRegistry:
    """The list of a federation's sites, in one JSON file.

    Every call goes by the file as it is then, parsed again only when it has changed; a change is written in one step
    under a lock. So commands, gateway and server may use it side by side.

    Example:
        >>> from zk0.network.security.keys import NodeKey
        >>> registry = SiteRegistry.create(Path("security/sites.json"), "arms")
        >>> registry.admit("kitchen", NodeKey.create(Path("kitchen")).public).partition
        0
    """

    def __init__(self, path: Path) -> None:
        """Use the list at ``path``; see :meth:`create` to begin one."""
        self.path = path
        self._seen: tuple[int, ...] = ()
        self._sites: Sites | None = None

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
        """The list as it is now; the very same object as long as it is the same.

        Raises:
            StageError: It is missing, damaged, or others may write to it.
        """
        try:
            found = self.path.stat()
            if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise StageError(
                    f"{self.path} decides who may take part, and others on this machine may change it; "
                    f"look through it, then `chmod 644 {self.path}`"
                )
            # The list is replaced as a whole, so a new one has another inode even within one tick of the clock.
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._sites is None or seen != self._seen:
                self._sites, self._seen = read_model(self.path, Sites), seen
            return self._sites
        except FileNotFoundError as error:
            raise StageError(f"{self.path} is missing; `zk0 security init --host NAME` begins it") from error
        except BadFileError as error:
            raise StageError(f"{self.path} is no list of sites: {error}; bring back a copy of it") from error

    def sites(self) -> tuple[Site, ...]:
        """All sites, revoked ones too, by partition."""
        return tuple(sorted(self.read().sites, key=lambda site: site.partition))

    def site(self, name: str) -> Site:
        """One site; a StageError where there is none of that name, with the nearest."""
        return self._named(self.read(), name)

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
        key = PublicKey.read(public_key)

        def change(sites: Sites) -> Site:
            present = sites.named(name)
            if present is not None and present.admitted:
                raise StageError(
                    f"there is a site '{name}' already, with the key {present.fingerprint}; choose another name, or "
                    f"give it the new key with `zk0 site rotate {name} PUBKEY`"
                )
            sites.refuse_known(key)
            if present is None:
                try:
                    check_site_name(name)
                except ValueError as error:
                    raise StageError(str(error)) from error
                number = max((site.partition for site in sites.sites), default=-1) + 1
                known = {"public_key": key.line, "fingerprint": key.fingerprint}
                return Site(name=name, partition=number, since=_now(), why=why, **known)
            return present.with_key(key, why or "admitted again", present.why)

        return self._change(change)

    def revoke(self, name: str, why: str) -> Site:
        """Shut a site out: its key is refused from the next request on.

        Raises:
            StageError: There is none of that name, it is revoked already, or no reason is given.
        """
        if not why.strip():
            raise StageError(f"say why site {name} is revoked: --why TEXT; the list keeps it")

        def change(sites: Sites) -> Site:
            site = self._named(sites, name)
            if not site.admitted:
                raise StageError(f"site {name} was revoked on {site.since:%d %B %Y} already: {site.why}")
            return site.model_copy(update={"state": "revoked", "since": _now(), "why": why.strip()})

        return self._change(change)

    def rotate(self, name: str, public_key: str | Path | PublicKey, why: str = "key replaced") -> Site:
        """Give a site a new key; name and partition stay, and the old key is refused from the next request on.

        Raises:
            StageError: There is none of that name, it is revoked, or the key is known already.
        """
        key = PublicKey.read(public_key)

        def change(sites: Sites) -> Site:
            site = self._named(sites, name)
            if not site.admitted:
                raise StageError(f"site {name} is revoked ({site.why}); `zk0 site admit {name} PUBKEY` admits it again")
            sites.refuse_known(key)
            return site.with_key(key, why, why)

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
            return self._named(sites, name).model_copy(update={"node_id": node_id})

        return self._change(change)

    def _change(self, change: Callable[[Sites], Site]) -> Site:
        """Read the list, put one site into it and write it, while nobody else does."""
        try:
            with FileLock(self.path.with_name(f"{self.path.name}.lock"), timeout=_LOCK_S):
                sites = self.read()
                site = change(sites)
                others = [other for other in sites.sites if other.name != site.name]
                together = tuple(sorted([*others, site], key=lambda one: one.partition))
                write_json(self.path, Sites(federation=sites.federation, sites=together).model_dump(mode="json"))
        except Timeout as error:
            raise StageError(f"{self.path} is changed by another command for {_LOCK_S:.0f} s; try again") from error
        return site

    def _named(self, sites: Sites, name: str) -> Site:
        if (site := sites.named(name)) is not None:
            return site
        hint = nearest_hint(name, [one.name for one in sites.sites]) if sites.sites else "; it has no sites yet"
        raise StageError(f"there is no site '{name}' in {self.path}{hint}")


def _now() -> datetime:
    """The time that the list notes, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
