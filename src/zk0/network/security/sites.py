"""A federation's sites as a list, and what may become of it.

**Partitions.** A site's number is its identity in the federation's state: seeds, what its codec could not
carry, its privacy account and the order in which updates are added up all hang on it. So the first site is 0,
each new one gets the next number, and no number is ever given to another site: one that was revoked keeps
its own, and has it again when it is admitted again. Another federation is another list.

**Keys.** A site is known by its public key alone. A key that was replaced or revoked is remembered and admits
nobody any more, whoever brings it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from zk0.errors import StageError
from zk0.network.security.keys import PublicKey
from zk0.words import check_site_name


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RetiredKey(_Record):
    """A key that a site had before: it admits nobody."""

    fingerprint: str
    until: datetime
    why: str


class Site(_Record):
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
        """Whether it takes part."""
        return self.state == "admitted"

    @property
    def pem(self) -> bytes:
        """Its public key as Flower has it."""
        return PublicKey(self.public_key).pem

    @model_validator(mode="after")
    def _key_and_fingerprint_agree(self) -> Site:
        check_site_name(self.name)
        if PublicKey.parse(self.public_key, f"site {self.name}").fingerprint != self.fingerprint:
            raise ValueError(f"fingerprint of site {self.name} is not its public key's")
        return self


class Sites(_Record):
    """The list as it is on disk."""

    format: Literal[1] = 1
    federation: str
    sites: tuple[Site, ...] = ()

    @model_validator(mode="after")
    def _each_is_one(self) -> Sites:
        for what in ("name", "partition", "fingerprint"):
            values = [getattr(site, what) for site in self.sites]
            if len(set(values)) < len(values):
                raise ValueError(f"two sites have the same {what}")
        return self

    def named(self, name: str) -> Site | None:
        """The site of that name."""
        return next((site for site in self.sites if site.name == name), None)

    def by_fingerprint(self) -> dict[str, tuple[Site, bool]]:
        """From a key's fingerprint to its site, and whether it is the key that the site has now."""
        found = {key.fingerprint: (site, False) for site in self.sites for key in site.retired}
        return found | {site.fingerprint: (site, True) for site in self.sites}


def with_key(site: Site, key: PublicKey, why: str, retired_why: str) -> Site:
    """The same site with another key; the SuperLink does not know it by that one yet."""
    retired = RetiredKey(fingerprint=site.fingerprint, until=now(), why=retired_why)
    return Site(
        name=site.name,
        partition=site.partition,
        public_key=key.line,
        fingerprint=key.fingerprint,
        node_id=None,
        since=now(),
        why=why,
        retired=(*site.retired, retired),
    )


def refuse_known(sites: Sites, key: PublicKey) -> None:
    """A key belongs to one site, once.

    Raises:
        StageError: It is or was somebody's; says whose.
    """
    site, current = sites.by_fingerprint().get(key.fingerprint, (None, False))
    if site is None:
        return
    if current and site.admitted:
        raise StageError(f"the key {key.fingerprint} is site {site.name}'s; every site needs a key of its own")
    raise StageError(
        f"the key {key.fingerprint} was site {site.name}'s and is not valid any more ({_reason(site, key)}); have the "
        "owner make a new pair"
    )


def _reason(site: Site, key: PublicKey) -> str:
    return next((old.why for old in site.retired if old.fingerprint == key.fingerprint), site.why)


def now() -> datetime:
    """The time that the list notes, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
