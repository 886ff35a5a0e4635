"""An invitation: everything that a robot owner needs to join, in one file without a secret.

The owner sends the operator a public key; the operator admits it and sends the invitation back. It is signed
by the federation's authority, whose certificate it carries, so that nobody can change a part of it. Whether
that authority is the right one, the file alone cannot say: operator and owner compare its fingerprint by another
way (a call, a paper), because who could replace the whole file could have the site run code of his own.
"""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, Field

from zk0.errors import StageError
from zk0.files import BadFileError, write_json
from zk0.network.security.authority import Authority
from zk0.network.security.certificates import check_dates, fingerprint, host_names, parse_certificate
from zk0.network.security.files import Places
from zk0.network.security.keys import NodeKey, PublicKey
from zk0.network.security.sites import Site, SiteRegistry
from zk0.settings import read_model

_LIMIT = 64 * 1024
_ASK = "ask the operator for a new one"


class Invitation(BaseModel):
    """What a site joins with.

    Attributes:
        federation: Its name.
        server: ``HOST:PORT`` of the gateway.
        site: The site's name in the federation.
        partition: Its number.
        key: Fingerprint of the public key that was admitted.
        authority: The authority's certificate, PEM: the only one that the site trusts for the server.
        issued: When, UTC.
        signature: The authority's, over all the rest; base64.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    federation: str
    server: str
    site: str
    partition: int = Field(ge=0)
    key: str
    authority: str
    issued: datetime
    signature: str = ""

    @classmethod
    def issue(cls, authority: Authority, federation: str, server: str, site: Site) -> Invitation:
        """Write a site's invitation and sign it.

        Args:
            authority: The federation's, with its key.
            federation: Its name.
            server: ``HOST:PORT`` under which sites reach the gateway.
            site: An admitted one.

        Raises:
            StageError: The address is none, or the site is revoked.
        """
        if not site.admitted:
            raise StageError(f"site {site.name} is revoked ({site.why}) and cannot be invited")
        check_address(server)
        content = cls(
            federation=federation,
            server=server,
            site=site.name,
            partition=site.partition,
            key=site.fingerprint,
            authority=authority.certificate.public_bytes(serialization.Encoding.PEM).decode(),
            issued=datetime.now(UTC).replace(microsecond=0),
        )
        signature = authority.key().sign(content._signed(), ec.ECDSA(hashes.SHA384()))
        return content.model_copy(update={"signature": base64.b64encode(signature).decode()})

    @classmethod
    def read(cls, path: Path) -> Invitation:
        """Read an invitation and check its signature.

        Raises:
            StageError: It is missing, damaged, or was changed after it was signed.
        """
        if not path.exists():
            raise StageError(f"there is no invitation {path}; the operator sends one when your key is admitted")
        try:
            found = read_model(path, cls, _LIMIT)
        except BadFileError as error:
            raise StageError(f"{path} is no invitation ({error}); {_ASK}") from error
        certificate = found.certificate
        check_dates(certificate, f"the authority in {path}", _ASK)
        check_address(found.server)
        try:
            public = certificate.public_key()
            if not isinstance(public, ec.EllipticCurvePublicKey):
                raise InvalidSignature
            public.verify(base64.b64decode(found.signature, validate=True), found._signed(), ec.ECDSA(hashes.SHA384()))
        except (InvalidSignature, ValueError) as error:
            raise StageError(f"{path} was changed after the operator signed it; do not use it, {_ASK}") from error
        return found

    def write(self, path: Path) -> None:
        """Write it as JSON; there is nothing secret in it."""
        write_json(path, self.model_dump(mode="json"))

    def check(self, key: NodeKey, authority_fingerprint: str | None = None) -> None:
        """Refuse an invitation that is another site's, or another federation's.

        Args:
            key: This site's.
            authority_fingerprint: What the operator told by another way, or its first eight bytes or more; None
                where nothing is compared.

        Raises:
            StageError: It is; says which.
        """
        if self.key != key.fingerprint:
            raise StageError(
                f"this invitation is for the key {self.key}, and {key.path} is {key.fingerprint}; send the operator "
                f"{key.public_path}, or use the key that was admitted"
            )
        if authority_fingerprint is not None:
            given = re.sub(r"[^0-9A-F]", "", authority_fingerprint.upper())
            if len(given) < 16 or not self.authority_fingerprint.replace(":", "").startswith(given):
                raise StageError(
                    f"the authority in this invitation is {self.authority_fingerprint}, and the operator's is said to "
                    f"be {authority_fingerprint}; do not use it: somebody may have replaced it on its way"
                )

    @property
    def certificate(self) -> x509.Certificate:
        """The authority's.

        Raises:
            StageError: It is damaged.
        """
        return parse_certificate(self.authority.encode(), "the invitation's authority")

    @property
    def authority_fingerprint(self) -> str:
        """SHA-256 of the authority, to compare with what the operator says."""
        return fingerprint(self.certificate)

    def _signed(self) -> bytes:
        """What is signed: everything else, in one fixed form."""
        content = self.model_dump(mode="json", exclude={"signature"})
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def check_address(address: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; an IPv6 address stands in brackets.

    Raises:
        StageError: It is none.
    """
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise StageError(f"'{address}' is no server address; HOST:PORT was expected, as in robots.example.org:9443")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise StageError(
            f"'{address}' is no server address; an IPv6 address stands in brackets, as in [2001:db8::7]:9443"
        )
    host_names([bare])
    return bare, int(port)


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
    key = _checked(folder, public_key, server)
    SiteRegistry(Places(folder).registry).admit(name, key)
    return invite_site(folder, name, server, out)


def rotate_site(folder: Path, name: str, public_key: str | Path, server: str, out: Path | None = None) -> Path:
    """Give a site a new key and write its new invitation; see :func:`admit_site`."""
    key = _checked(folder, public_key, server)
    SiteRegistry(Places(folder).registry).rotate(name, key)
    return invite_site(folder, name, server, out)


def invite_site(folder: Path, name: str, server: str, out: Path | None = None) -> Path:
    """Write an admitted site's invitation again; see :func:`admit_site`."""
    places = Places(folder)
    authority, registry = Authority.open(places.authority), SiteRegistry(places.registry)
    path, site = out or places.invitation(name), registry.site(name)
    Invitation.issue(authority, registry.read().federation, server, site).write(path)
    return path


def _checked(folder: Path, public_key: str | Path, server: str) -> PublicKey:
    """The key; all that could fail is tried before anything is changed."""
    key = PublicKey.read(public_key)
    check_address(server)
    Authority.open(Places(folder).authority).key()
    return key
