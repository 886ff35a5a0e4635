"""Certificates are what a TLS client accepts, and files that were tampered with are refused by name."""

from __future__ import annotations

import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from network_services import fleet

from zk0.errors import StageError
from zk0.network.gateway.server import tls_context
from zk0.network.security.authority import Authority, ServerCertificate, expiries

NOW = datetime.now(UTC)


class _Answers(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(certificate: ServerCertificate) -> Iterator[int]:
    """An HTTPS server with this certificate; whatever it is sent, it answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    context = tls_context(certificate.path, certificate.key_path)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def connect(port: int, authority: Authority, host: str = "127.0.0.1") -> None:
    """Connect as Flower's SuperNode does."""
    with fleet(f"{host}:{port}", authority.path, None) as client:
        client.ActivateNode(ActivateNodeRequest())


def test_a_flower_node_accepts_the_servers_certificate(authority: Authority) -> None:
    with serving(authority.issue_server(["127.0.0.1", "localhost"])) as port:
        connect(port, authority)
        connect(port, authority, "localhost")


def test_a_flower_node_refuses_an_expired_certificate(authority: Authority) -> None:
    expired = authority.issue_server(["127.0.0.1"], days=2, start=NOW - timedelta(days=3))

    with serving(expired) as port, pytest.raises(httpx.ConnectError, match="certificate has expired"):
        connect(port, authority)


def test_a_flower_node_refuses_a_certificate_that_is_not_valid_yet(authority: Authority) -> None:
    later = authority.issue_server(["127.0.0.1"], start=NOW + timedelta(days=2))

    with serving(later) as port, pytest.raises(httpx.ConnectError, match="not yet valid"):
        connect(port, authority)


def test_a_flower_node_refuses_another_name(authority: Authority) -> None:
    with (
        serving(authority.issue_server(["robots.example.org", "192.0.2.7"])) as port,
        pytest.raises(httpx.ConnectError, match=r"not valid for '127.0.0.1'"),
    ):
        connect(port, authority)


def test_a_flower_node_refuses_another_authority(authority: Authority, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other", "arms")  # even one of the same name

    with (
        serving(other.issue_server(["127.0.0.1"])) as port,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        connect(port, authority)


def test_the_server_takes_no_old_tls(authority: Authority) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(authority.path)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1

    with serving(authority.issue_server(["127.0.0.1"])) as port, pytest.raises(httpx.ConnectError):
        httpx.post(f"https://127.0.0.1:{port}/", verify=old, trust_env=False)


def test_extensions_say_what_a_certificate_is_for(authority: Authority) -> None:
    server = authority.issue_server(["robots.example.org", "192.0.2.7", "2001:db8::7"])

    def extension(certificate: x509.Certificate, kind: type) -> x509.Extension:
        return certificate.extensions.get_extension_for_class(kind)

    root, leaf = authority.certificate, server.certificate
    assert extension(root, x509.BasicConstraints).critical
    assert extension(root, x509.BasicConstraints).value == x509.BasicConstraints(ca=True, path_length=0)
    assert extension(root, x509.KeyUsage).value.key_cert_sign
    assert extension(leaf, x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)
    assert extension(leaf, x509.KeyUsage).value.digital_signature
    assert not extension(leaf, x509.KeyUsage).value.key_cert_sign
    assert list(extension(leaf, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    issuer = extension(root, x509.SubjectKeyIdentifier).value.digest
    assert extension(leaf, x509.AuthorityKeyIdentifier).value.key_identifier == issuer
    assert server.hosts == ("robots.example.org", "192.0.2.7", "2001:db8::7")


def test_keys_are_their_owners_alone(authority: Authority) -> None:
    server = authority.issue_server(["localhost"])

    for key in (authority.folder / "ca.key", server.key_path):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    for folder in (authority.folder, server.path.parent.resolve(), server.path.parent.resolve().parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_keys_open_to_others_are_refused(authority: Authority) -> None:
    server = authority.issue_server(["localhost"])
    server.key_path.chmod(0o640)
    with pytest.raises(StageError, match=r"server\.key is a secret, but its permissions are 0640.*chmod 600"):
        authority.server()

    (authority.folder / "ca.key").chmod(0o644)
    with pytest.raises(StageError, match=r"ca\.key is a secret"):
        authority.issue_server(["localhost"], name="second")


def test_a_folder_open_to_others_gets_no_keys(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)

    with pytest.raises(StageError, match="chmod 700"):
        Authority.create(tmp_path / "open", "arms")
    assert list((tmp_path / "open").iterdir()) == []


def test_nothing_is_overwritten(authority: Authority) -> None:
    before = authority.path.read_bytes()
    authority.issue_server(["localhost"])

    with pytest.raises(StageError, match=r"there is an authority in .* already"):
        Authority.create(authority.folder, "arms")
    with pytest.raises(StageError, match=r"there is a certificate 'server' .* already; `zk0 security rotate`"):
        authority.issue_server(["localhost"])
    assert authority.path.read_bytes() == before


def test_rotation_makes_a_new_pair_and_keeps_the_old_one(authority: Authority) -> None:
    old = authority.issue_server(["robots.example.org"], days=10)
    kept = old.path.resolve()

    new = authority.rotate(days=20)

    assert new.path == old.path
    assert new.fingerprint != old.fingerprint
    assert new.hosts == old.hosts
    assert new.certificate.public_key() != old.certificate.public_key()
    assert (new.expires - old.expires).days == 10
    assert x509.load_pem_x509_certificate(kept.read_bytes()) == old.certificate
    assert authority.server().certificate == new.certificate
    assert authority.rotate(hosts=["192.0.2.8"]).hosts == ("192.0.2.8",)


def test_rotation_that_fails_leaves_the_present_pair(authority: Authority) -> None:
    present = authority.issue_server(["localhost"])
    (authority.folder / "ca.key").rename(authority.folder / "ca.key.away")

    with pytest.raises(StageError, match="bring the authority's key back"):
        authority.rotate()
    assert authority.server().certificate == present.certificate


def test_a_certificate_never_outlives_its_authority(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "short", "arms", days=30)

    assert authority.issue_server(["localhost"], days=365).expires == authority.expires


def test_reading_says_what_is_wrong(authority: Authority, tmp_path: Path) -> None:
    authority.issue_server(["localhost"], days=2, name="expired", start=NOW - timedelta(days=3))
    authority.issue_server(["localhost"], name="later", start=NOW + timedelta(days=2))
    good = authority.issue_server(["localhost"])
    other = Authority.create(tmp_path / "other", "arms")

    with pytest.raises(StageError, match=r"expired on .*; `zk0 security rotate`"):
        authority.server("expired")
    with pytest.raises(StageError, match=r"is valid from .* set the clock"):
        authority.server("later")
    with pytest.raises(StageError, match="was not issued by this federation's authority"):
        Authority(other.certificate, authority.folder).server()
    good.key_path.write_bytes((authority.folder / "later" / "server.key").read_bytes())
    with pytest.raises(StageError, match="does not belong to the private key beside it"):
        authority.server()
    good.path.write_text("no certificate")
    with pytest.raises(StageError, match=r"server\.pem holds no certificate"):
        authority.server()
    with pytest.raises(StageError, match="is missing"):
        authority.server("never-issued")


def test_what_is_no_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    leaf = authority.issue_server(["localhost"])
    (tmp_path / "leaf").mkdir()
    (tmp_path / "leaf" / "ca.pem").write_bytes(leaf.path.read_bytes())

    with pytest.raises(StageError, match="is no authority's certificate"):
        Authority.open(tmp_path / "leaf")
    with pytest.raises(StageError, match=r"ca\.pem is missing; `zk0 security init"):
        Authority.open(tmp_path / "empty")
    with pytest.raises(StageError, match=r"ca\.pem expired on"):
        Authority.open(authority.folder, now=NOW + timedelta(days=3651))


@pytest.mark.parametrize("host", ["https://robots.example.org", "robots.example.org:9443", "-x.org", "", "a b"])
def test_what_is_no_host_is_refused(authority: Authority, host: str) -> None:
    with pytest.raises(StageError, match="neither a host name nor an IP address"):
        authority.issue_server([host])


def test_days_left_are_told_before_and_after_the_end(authority: Authority) -> None:
    authority.issue_server(["localhost"], days=100)

    def state(after: int) -> dict[str, tuple[int, str]]:
        rows = expiries(authority.folder, NOW + timedelta(days=after, hours=1))
        return {row.name: (row.days_left, row.state) for row in rows}

    assert state(0) == {"server": (99, "ok"), "authority": (3649, "ok")}
    assert state(69)["server"] == (30, "ok")
    assert state(70)["server"] == (29, "soon")
    assert state(101)["server"] == (-2, "expired")
