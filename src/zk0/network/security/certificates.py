"""X.509 certificates as zk0 makes and checks them: who made one, whom it names, until when."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from zk0.errors import StageError
from zk0.private_files import read_private

INIT = "`zk0 security init --host NAME` makes one"
ROTATE = "`zk0 security rotate` issues a new one"

# Clocks of two machines differ; a certificate that is valid from this very second fails on the slower one.
_CLOCK_SKEW = timedelta(minutes=5)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def subject(name: str, what: str) -> x509.Name:
    """A distinguished name: the federation as organisation, and what the certificate is for."""
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, name[:64])
    return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, what[:64])])


def host_names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    """Hosts as a certificate names them: IP addresses as such, everything else as DNS names.

    Raises:
        StageError: None are given, or one is neither an address nor a name.
    """
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(host.strip().lower().rstrip(".") for host in hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
                raise StageError(
                    f"'{host}' is neither a host name nor an IP address; give the name under which sites reach the "
                    "server, as in robots.example.org or 192.0.2.7, without https:// and without a port"
                ) from None
            names.append(x509.DNSName(host))
    if not names:
        raise StageError("a server certificate needs at least one host name or IP address")
    return names


def named_hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    """The hosts that a certificate is for; none where it names none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names)


def make_authority(name: str, key: ec.EllipticCurvePrivateKey, days: int, start: datetime) -> x509.Certificate:
    """A certificate that signs itself and may sign servers', but no further authorities."""
    who = subject(name, f"zk0 federation {name}")
    builder = _builder(who, who, key.public_key(), days, start)
    usage = _usage(certificate_sign=True, digital_signature=True)  # the latter for invitations
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA384())
    )


def make_server(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    hosts: Iterable[str],
    days: int,
    start: datetime,
) -> x509.Certificate:
    """A server's certificate, never valid for longer than its authority's."""
    names = host_names(hosts)
    organisation = str(authority.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value)
    who = subject(organisation, str(names[0].value))
    builder = _builder(who, authority.subject, public_key, days, start, authority.not_valid_after_utc)
    issuer = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .sign(authority_key, hashes.SHA384())
    )


def _builder(
    who: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    days: int,
    start: datetime,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    if days < 1:
        raise StageError(f"a certificate must be valid for a day or more, not {days}")
    end = start + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _CLOCK_SKEW)
        .not_valid_after(min(end, latest) if latest else end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(digital_signature: bool = False, certificate_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=certificate_sign,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def parse_certificate(content: bytes, origin: str) -> x509.Certificate:
    """Read a PEM certificate.

    Raises:
        StageError: It is none; names ``origin``.
    """
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError as error:
        raise StageError(f"{origin} holds no certificate in PEM form ({error})") from error


def read_certificate(path: Path, advice: str) -> x509.Certificate:
    """Read a PEM certificate's file.

    Raises:
        StageError: It is missing or no certificate.
    """
    if not path.is_file():
        raise StageError(f"{path} is missing; {advice}")
    return parse_certificate(path.read_bytes(), str(path))


def read_key(path: Path, advice: str) -> ec.EllipticCurvePrivateKey:
    """Read the private key of a certificate.

    Raises:
        StageError: It is missing, open to others, or no elliptic-curve key.
    """
    content = read_private(path, advice)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise StageError(f"{path} holds no private key in PEM form without a password ({error})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StageError(f"{path} holds a {type(key).__name__.lstrip('_')}, and an elliptic-curve key was expected")
    return key


def key_content(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as its file holds it: PEM, PKCS8, no password."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def check_dates(certificate: x509.Certificate, origin: str, advice: str, now: datetime | None = None) -> None:
    """Refuse a certificate outside its dates.

    Args:
        certificate: What is checked.
        origin: Its file, for the message.
        advice: What to do when it has expired.
        now: The time that counts; the present by default.

    Raises:
        StageError: It has expired, or is not valid yet.
    """
    now = now or datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise StageError(f"{origin} expired on {certificate.not_valid_after_utc:%d %B %Y}; {advice}")
    if now < certificate.not_valid_before_utc:
        raise StageError(
            f"{origin} is valid from {certificate.not_valid_before_utc:%d %B %Y %H:%M} UTC on, and this machine's "
            f"clock says {now:%d %B %Y %H:%M}; set the clock"
        )


def check_key(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, origin: str, advice: str) -> None:
    """Refuse a certificate whose key this is not.

    Raises:
        StageError: The key belongs to another.
    """
    if certificate.public_key() != key.public_key():
        raise StageError(f"{origin} does not belong to the private key beside it; {advice}")


def check_server(certificate: x509.Certificate, key: Path, authority: x509.Certificate, origin: str) -> None:
    """Refuse a server's certificate over which a service, or whoever connects to it, would stumble.

    Args:
        certificate: The server's.
        key: File of its private key.
        authority: Whose it must be.
        origin: Its file, for the message.

    Raises:
        StageError: It has expired, is not valid yet, is another authority's, does not belong to its key, or its key
            is open to others.
    """
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise StageError(
            f"{origin} was not issued by this federation's authority ({fingerprint(authority)}), but by "
            f"'{certificate.issuer.rfc4514_string()}'; {ROTATE}"
        ) from error
    check_dates(certificate, origin, ROTATE)
    check_key(certificate, read_key(key, ROTATE), origin, ROTATE)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, as openssl prints it: ``4F:0A:...``; two people can read it to each other."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()
