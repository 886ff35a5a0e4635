"""A certificate authority of its own for one federation.

The federation's sites trust this authority for its server and for nothing else, and no public one.
On disk::

    authority/            0700
      ca.pem              what sites get, in their invitation
      ca.key              0600; needed to issue, rotate and invite only, so it may be kept elsewhere in between
      server -> issued/server-20261124T1200-5f0c
      issued/             every certificate ever made, with its key

A certificate and its key lie in one folder, and the name that services use is a link to it: rotation
swaps the link, so that no reader ever meets a new certificate with an old key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from zk0.checks import Check
from zk0.errors import StageError
from zk0.files import write_bytes
from zk0.network.security.certificates import (
    INIT,
    ROTATE,
    check_dates,
    check_key,
    check_server,
    fingerprint,
    key_content,
    make_authority,
    make_server,
    named_hosts,
    read_certificate,
    read_key,
)
from zk0.private_files import private_folder, write_private


@dataclass(frozen=True)
class _Certified:
    """Whatever has a certificate.

    Attributes:
        certificate: Parsed.
    """

    certificate: x509.Certificate

    @property
    def expires(self) -> datetime:
        """When the certificate ends, in UTC."""
        return self.certificate.not_valid_after_utc

    @property
    def fingerprint(self) -> str:
        """SHA-256, in pairs of hex digits; two people can compare it by another way than the file's."""
        return fingerprint(self.certificate)


@dataclass(frozen=True)
class ServerCertificate(_Certified):
    """A certificate and its key, as services take them.

    Attributes:
        path: The certificate, PEM.
        key_path: Its private key, PEM.
    """

    path: Path
    key_path: Path

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names and addresses that it is for."""
        return named_hosts(self.certificate)


@dataclass(frozen=True)
class Authority(_Certified):
    """The authority of one federation; by its certificate sites check the server.

    Attributes:
        folder: Its own, entered by nobody else.

    Example:
        >>> authority = Authority.create(Path("security/authority"), "arms")
        >>> authority.issue_server(["robots.example.org", "192.0.2.7"]).hosts
        ('robots.example.org', '192.0.2.7')
    """

    folder: Path

    @classmethod
    def create(cls, folder: Path, name: str, days: int = 3650, start: datetime | None = None) -> Authority:
        """Make an authority.

        Args:
            folder: Where; made if need be, readable by its owner alone.
            name: The federation's.
            days: How long it is valid.
            start: From when; now by default.

        Raises:
            StageError: There is one already: everything that it signed would be worthless without it.
        """
        if not name.strip():
            raise StageError("a federation needs a name")
        advice = "use it, or choose another folder for another federation"
        if (folder / "ca.pem").exists():
            raise StageError(f"there is an authority in {folder} already; {advice}")
        key = ec.generate_private_key(ec.SECP384R1())
        certificate = make_authority(name, key, days, start or datetime.now(UTC))
        private_folder(folder)
        write_private(folder / "ca.key", key_content(key), advice)
        write_bytes(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))
        return cls(certificate, folder)

    @classmethod
    def open(cls, folder: Path, now: datetime | None = None) -> Authority:
        """Read an authority; its private key only when something is to be signed.

        Raises:
            StageError: It is missing, has expired, or is no authority.
        """
        path = folder / "ca.pem"
        certificate = read_certificate(path, INIT)
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            constraints = None
        if constraints is None or not constraints.ca:
            raise StageError(f"{path} is no authority's certificate; put the authority's own there, or make a new one")
        check_dates(certificate, str(path), "make a new authority, and send every site a new invitation", now)
        return cls(certificate, folder)

    @property
    def path(self) -> Path:
        """The authority's certificate, PEM: what sites and services get."""
        return self.folder / "ca.pem"

    def key(self) -> ec.EllipticCurvePrivateKey:
        """The private key.

        Raises:
            StageError: It is missing, open to others, or another authority's.
        """
        path = self.folder / "ca.key"
        key = read_key(path, "bring the authority's key back to sign something")
        check_key(self.certificate, key, str(self.path), "put the key that belongs to it there")
        return key

    def issue_server(
        self, hosts: Iterable[str], days: int = 365, name: str = "server", start: datetime | None = None
    ) -> ServerCertificate:
        """Issue a certificate for a server.

        Args:
            hosts: Names and IP addresses under which it is reached.
            days: How long it is valid; never longer than the authority.
            name: By what it is found in the folder.
            start: From when; now by default.

        Raises:
            StageError: There is one of that name, or a host is none.
        """
        if (self.folder / name).is_symlink():
            raise StageError(f"there is a certificate '{name}' in {self.folder} already; {ROTATE}")
        return self._issue(hosts, days, name, start)

    def rotate(
        self,
        days: int = 365,
        name: str = "server",
        hosts: Iterable[str] | None = None,
        start: datetime | None = None,
    ) -> ServerCertificate:
        """Issue a new certificate with a new key in the place of the present one, which is kept in ``issued/``.

        Args:
            days: How long the new one is valid.
            name: Which.
            hosts: For whom; those of the present one by default.
            start: From when; now by default.

        Raises:
            StageError: There is none yet.
        """
        link = self.folder / name
        present = read_certificate(link / "server.pem", INIT)
        return self._issue(named_hosts(present) if hosts is None else hosts, days, name, start)

    def server(self, name: str = "server") -> ServerCertificate:
        """Read a certificate that was issued, and check all that a service would stumble over.

        Raises:
            StageError: It has expired, is not valid yet, is another authority's, does not belong to
                its key, or its key is open to others.
        """
        found = self._read(name)
        check_server(found.certificate, found.key_path, self.certificate, str(found.path))
        return found

    def issued(self) -> dict[str, ServerCertificate]:
        """The certificates in use, by name, unchecked."""
        names = sorted(path.name for path in self.folder.iterdir() if path.is_symlink())
        return {name: self._read(name) for name in names}

    def _read(self, name: str) -> ServerCertificate:
        folder = self.folder / name
        path = folder / "server.pem"
        return ServerCertificate(read_certificate(path, INIT), path, folder / "server.key")

    def _issue(self, hosts: Iterable[str], days: int, name: str, start: datetime | None) -> ServerCertificate:
        authority_key = self.key()
        key = ec.generate_private_key(ec.SECP256R1())
        begin = start or datetime.now(UTC)
        certificate = make_server(self.certificate, authority_key, key.public_key(), hosts, days, begin)
        kept = private_folder(self.folder / "issued")
        made = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        folder = private_folder(kept / f"{name}-{made}-{certificate.serial_number & 0xFFFFFFFF:08x}")
        write_private(folder / "server.key", key_content(key), "try again")
        write_bytes(folder / "server.pem", certificate.public_bytes(serialization.Encoding.PEM))
        link = self.folder / f".{name}.new"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("issued") / folder.name)
        link.replace(self.folder / name)  # in one step: readers see the old pair or the new one
        return self._read(name)


WARN_DAYS = 30


@dataclass(frozen=True)
class Expiry:
    """A certificate's end.

    Attributes:
        name: ``authority``, or what the certificate is found by.
        hosts: For whom; none for the authority.
        expires: When it ends, UTC.
        days_left: Whole days until then; below 0 where it has expired.
        fingerprint: SHA-256.
    """

    name: str
    hosts: tuple[str, ...]
    expires: datetime
    days_left: int
    fingerprint: str

    @property
    def state(self) -> str:
        """``expired``, ``soon`` (less than 30 days) or ``ok``."""
        if self.days_left < 0:
            return "expired"
        return "soon" if self.days_left < WARN_DAYS else "ok"

    def check(self, days: int, advice: str) -> Check:
        """Whether it is valid for so many days yet; an error where it has expired."""
        severity: Literal["error", "warning"] = "error" if self.days_left < 0 else "warning"
        found, expected = f"{self.days_left} days left", f"{days} days or more"
        return Check(f"certificate of {self.name}", self.days_left >= days, found, expected, advice, severity)


def days_left(certificate: x509.Certificate, now: datetime | None = None) -> int:
    """Whole days that a certificate is still valid; below 0 where it has expired."""
    return (certificate.not_valid_after_utc - (now or datetime.now(UTC))).days


def expiries(folder: Path, now: datetime | None = None) -> list[Expiry]:
    """The authority of a folder and all certificates in use, the first to expire first.

    Raises:
        StageError: A certificate is missing or damaged.
    """
    authority = Authority(read_certificate(folder / "ca.pem", INIT), folder)
    found = {"authority": authority.certificate}
    found |= {name: one.certificate for name, one in authority.issued().items()}
    rows = [
        Expiry(name, named_hosts(one), one.not_valid_after_utc, days_left(one, now), fingerprint(one))
        for name, one in found.items()
    ]
    return sorted(rows, key=lambda row: row.expires)
