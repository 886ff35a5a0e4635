"""Whose request it is.

Flower's SuperNode signs the time with its key and sends key, time and signature as headers of every request. The
SuperLink checks them too, but only after it has read the whole body into memory, and it takes the same signature again
and again for five minutes. So the gateway checks them first: nothing of a stranger's request is read, a revoked key is
refused from the next request on, and no signature counts twice.
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from zk0.errors import StageError
from zk0.federation.flower import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    SYSTEM_TIME_TOLERANCE,
    TIMESTAMP_HEADER,
    TIMESTAMP_TOLERANCE,
)
from zk0.network.gateway.journal import Refused
from zk0.network.security.keys import key_fingerprint
from zk0.network.security.sites import Site, SiteRegistry, Sites

Headers = Iterable[tuple[bytes, bytes]]

_HEADERS = tuple(
    name.encode() for name in (FLEET_HTTP_PUBLIC_KEY_HEADER, TIMESTAMP_HEADER, FLEET_HTTP_SIGNATURE_HEADER)
)
_LONGEST = 1024  # a key on P-521 has 364 characters in base64, its signature 188
_REMEMBERED = 200_000
_CURVES = (ec.SECP256R1.name, ec.SECP384R1.name, ec.SECP521R1.name)


class RegistryView:
    """The list of sites as it is on disk now, by key."""

    def __init__(self, path: Path) -> None:
        """Look at the list at ``path``."""
        self._registry = SiteRegistry(path)
        self._list: Sites | None = None
        self._sites: dict[str, tuple[Site, bool]] = {}

    def by_fingerprint(self) -> dict[str, tuple[Site, bool]]:
        """See :meth:`zk0.network.security.sites.Sites.by_fingerprint`.

        Raises:
            StageError: The list is missing or damaged; then nobody is let in.
        """
        try:
            sites = self._registry.read()
        except OSError as error:
            raise StageError(f"{self._registry.path} cannot be read ({error.strerror})") from error
        if sites is not self._list:
            self._list, self._sites = sites, sites.by_fingerprint()
        return self._sites


class Signatures:
    """Signatures that were used, until they would be too old anyway.

    An ECDSA signature is drawn anew for every request, so an honest node never sends one twice, even at one time.
    """

    def __init__(self, lifetime_s: float) -> None:
        """Remember each for ``lifetime_s``."""
        self._lifetime = lifetime_s
        self._used: OrderedDict[tuple[str, int], float] = OrderedDict()

    def first(self, fingerprint: str, nonce: int, now: float) -> bool:
        """Whether this signature was not used before; it is from now on.

        Args:
            fingerprint: Of the key.
            nonce: The signature's first number. Whoever has seen a signature can change its second one so that
                it stays valid, but not this.
            now: Seconds.
        """
        while self._used and (next(iter(self._used.values())) < now - self._lifetime or len(self._used) > _REMEMBERED):
            self._used.popitem(last=False)
        if (fingerprint, nonce) in self._used:
            return False
        self._used[fingerprint, nonce] = now
        return True


class Identity:
    """Checks whose request it is by its head alone."""

    def __init__(self, registry: Path) -> None:
        """Go by the list of sites at ``registry``."""
        self._view = RegistryView(registry)
        self._oldest = float(TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE)
        # A time may lie ahead by the tolerance, so a signature stays valid for that much longer.
        self._signatures = Signatures(self._oldest + SYSTEM_TIME_TOLERANCE)

    def check(self, headers: Headers, now: datetime | None = None) -> Site:
        """The admitted site that sent this request.

        Args:
            headers: Names in lower case.
            now: The time that counts; the present by default.

        Raises:
            Refused: There is none: no key or a strange one, one that was revoked or replaced, a signature that is
                wrong, too old or used before; or the list of sites cannot be read.
        """
        now = now or datetime.now(UTC)
        encoded_key, stamp, encoded_signature = _three(headers)
        key = _public_key(encoded_key)
        if key is None:
            raise Refused(401, "bad-key", "the request's key is not one of Flower's nodes'")
        fingerprint = key_fingerprint(key)
        site, current = self._site(fingerprint)
        signature = _decode(encoded_signature)
        age = _age(stamp, now)
        if age is None or not -SYSTEM_TIME_TOLERANCE < age < self._oldest:
            told = "unreadable" if age is None else f"{age:.0f} s old"
            raise Refused(401, "stale", f"the request's time is {told}: set the clock", fingerprint, site.name)
        try:
            key.verify(signature, stamp, ec.ECDSA(hashes.SHA256()))
            nonce = decode_dss_signature(signature)[0]
        except (InvalidSignature, ValueError):
            raise Refused(401, "bad-signature", "the request's signature is wrong", fingerprint, site.name) from None
        if not self._signatures.first(fingerprint, nonce, now.timestamp()):
            raise Refused(401, "replayed", "the request's signature was used before", fingerprint, site.name)
        # Only now, since the reason is told to whoever holds the key and to nobody else.
        if not site.admitted:
            raise Refused(401, "revoked", f"site {site.name} was revoked: {site.why}", fingerprint, site.name)
        if not current:
            raise Refused(401, "replaced-key", f"site {site.name} has a new key", fingerprint, site.name)
        return site

    def _site(self, fingerprint: str) -> tuple[Site, bool]:
        """Whose key it is or was, and whether it is the present one."""
        try:
            site, current = self._view.by_fingerprint().get(fingerprint, (None, False))
        except StageError as error:
            # Nodes try again after 503, so they come through a mended list without being restarted.
            raise Refused(
                503, "no-registry", "the list of sites cannot be read", fingerprint, note=str(error)
            ) from error
        if site is None:
            raise Refused(401, "unknown-key", "no site of this federation has this key", fingerprint)
        return site, current


def _three(headers: Headers) -> tuple[bytes, bytes, bytes]:
    """Key, time and signature, each there once."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _HEADERS:
            if name in found or len(value) > _LONGEST:
                raise Refused(401, "bad-head", "a header of the node's authentication is there twice or too long")
            found[name] = value
    if len(found) < len(_HEADERS):
        raise Refused(401, "no-key", "only nodes that prove their key are let in")
    key, stamp, signature = (found[name] for name in _HEADERS)
    return key, stamp, signature


@lru_cache(maxsize=1024)
def _public_key(encoded: bytes) -> ec.EllipticCurvePublicKey | None:
    """The key of a header, which is PEM in base64; None where it is no such key."""
    try:
        key = serialization.load_pem_public_key(base64.b64decode(encoded, validate=True))
    except (ValueError, UnsupportedAlgorithm, binascii.Error):
        return None
    return key if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES else None


def _decode(encoded: bytes) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return b""


def _age(stamp: bytes, now: datetime) -> float | None:
    """Seconds since a time in ISO form with its zone; None where it is none."""
    try:
        signed = datetime.fromisoformat(stamp.decode("ascii"))
    except ValueError:
        return None
    return None if signed.tzinfo is None else (now - signed).total_seconds()
