"""How long certificates last, for `zk0 security show` and health checks: nothing here fails on an expired one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from zk0.network.security.authority import Authority
from zk0.network.security.certificates import INIT, fingerprint, named_hosts, read_certificate

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
