"""The gateway's limits: by themselves, and in gateways of their own before an HTTPS server that answers anything."""

from __future__ import annotations

import io
import json
import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from network_services import Service, free_port, service, signed_headers, wait_until

from zk0.network.gateway.config import GatewayConfig
from zk0.network.gateway.journal import Buckets, Journal, Refused, address_key, logger
from zk0.network.gateway.server import tls_context
from zk0.network.security.files import Places, initialise
from zk0.network.security.keys import NodeKey
from zk0.network.security.sites import SiteRegistry
from zk0.services.telemetry import JsonLines

MEBIBYTE = 1 << 20
ANSWER_BYTES = 256 * MEBIBYTE


class _Upstream(BaseHTTPRequestHandler):
    """Reads what it is sent; its health is a very long answer, or one that breaks off."""

    protocol_version = "HTTP/1.1"
    breaks_off = False

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(ANSWER_BYTES))
        self.end_headers()
        piece = bytes(MEBIBYTE)
        for number in range(ANSWER_BYTES // MEBIBYTE):
            if self.breaks_off and number == 3:
                self.close_connection = True
                return
            try:
                self.wfile.write(piece)
            except OSError:
                return

    def log_message(self, *_: object) -> None:
        pass


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A gateway that hangs up is what some tests are about."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    return initialise(tmp_path_factory.mktemp("limits") / "security", ["127.0.0.1"], "arms")


@pytest.fixture(scope="module")
def key(places: Places) -> NodeKey:
    made = NodeKey.create(places.folder.parent / "site")
    SiteRegistry(places.registry).admit("kitchen", made.public)
    return made


@pytest.fixture(scope="module")
def upstream(places: Places) -> Iterator[str]:
    with served(places) as url:
        yield url


@contextmanager
def served(places: Places) -> Iterator[str]:
    """A server with the certificate of a federation's SuperLink; gives its address."""
    server = _QuietServer(("127.0.0.1", 0), _Upstream)
    folder = places.authority / "superlink"
    server.socket = tls_context(folder / "server.pem", folder / "server.key").wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Start = Callable[..., AbstractContextManager[tuple[Service, httpx.Client]]]


@pytest.fixture
def start(places: Places, upstream: str, tmp_path: Path) -> Start:
    """Start a gateway with some settings; gives its process and a client."""

    @contextmanager
    def started(**settings: Any) -> Iterator[tuple[Service, httpx.Client]]:
        port = free_port()
        config = GatewayConfig.of(places, **{"host": "127.0.0.1", "port": port, "upstream": upstream, **settings})
        config.write(tmp_path / "gateway.yaml")
        words = [sys.executable, "-m", "zk0.network.gateway", "--config", tmp_path / "gateway.yaml"]
        context = ssl.create_default_context(cafile=str(places.authority / "ca.pem"))
        url = f"https://127.0.0.1:{port}"
        with (
            service(words, tmp_path / "gateway.log") as gateway,
            httpx.Client(base_url=url, verify=context, trust_env=False, timeout=30) as client,
        ):
            wait_until(lambda: "listening" in gateway.text, f"its start; it says: {gateway.text}")
            yield gateway, client

    return started


def reasons(gateway: Service) -> list[str]:
    lines = [json.loads(line) for line in gateway.text.splitlines()]
    return [line["reason"] for line in lines if "reason" in line]


# In a gateway


def test_one_address_asks_so_often(start: Start) -> None:
    with start(requests_per_s=0.1, requests_burst=5) as (gateway, client):
        answers = [client.get("/nothing") for _ in range(7)]

    assert [answer.status_code for answer in answers] == [404] * 5 + [503] * 2
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 21
    assert reasons(gateway) == ["closed-path"] * 5 + ["too-many-requests"] * 2


def test_one_site_sends_so_much(start: Start, key: NodeKey) -> None:
    body = bytes(6 * MEBIBYTE)
    with start(site_bytes_per_hour=16 * MEBIBYTE) as (gateway, client):
        answers = [
            client.post("/v1/fleet/push-object", headers=signed_headers(key), content=body).status_code
            for _ in range(3)
        ]
        assert client.post("/v1/fleet/pull-messages", headers=signed_headers(key)).status_code == 200

    assert answers == [200, 200, 503]
    assert reasons(gateway) == ["too-many-bytes"]


def test_answers_are_streamed_and_not_held(start: Start) -> None:
    with start() as (gateway, client):
        process = psutil.Process(gateway.process.pid)
        client.get("/nothing")
        before, most, read = process.memory_info().rss, 0, 0
        with client.stream("GET", "/health") as answer:
            for piece in answer.iter_raw():
                read += len(piece)
                most = max(most, process.memory_info().rss)

    assert read == ANSWER_BYTES
    assert most - before < ANSWER_BYTES / 4


def test_whoever_does_not_read_is_cut_off(start: Start) -> None:
    with start(pause_s=1.0) as (gateway, client), client.stream("GET", "/health") as answer:
        assert answer.status_code == 200
        wait_until(lambda: "slow-reader" in reasons(gateway), "the cutting off", 30)
        with pytest.raises(httpx.TransportError):
            for _ in answer.iter_raw():
                pass


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Upstream, "breaks_off", True)
    with start() as (gateway, client):
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/health")
        wait_until(lambda: "superlink-away" in reasons(gateway), "a line of it", 10)


def test_a_server_that_is_not_the_superlink_gets_nothing(start: Start, key: NodeKey, tmp_path: Path) -> None:
    other = initialise(tmp_path / "other", ["127.0.0.1"], "arms")
    with served(other) as url, start(upstream=url) as (gateway, client):
        assert client.post("/v1/fleet/pull-messages", headers=signed_headers(key)).status_code == 502
        assert "CERTIFICATE_VERIFY_FAILED" in gateway.text


def test_half_a_handshake_is_cut_off(start: Start) -> None:
    with start(handshake_s=1.0) as (_, client):
        port = client.base_url.port
        assert port is not None
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            assert connection.recv(100) == b""  # well within the 60 s that asyncio would give it


# By themselves


def test_buckets_fill_again_and_are_forgotten() -> None:
    now = 0.0
    buckets = Buckets(rate=2.0, burst=4.0, keep=2, clock=lambda: now)

    assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    now = 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0, 0.5]
    now = 100.0
    assert [buckets.take("a", 4.0), buckets.take("a", 4.0)] == [0, 2.0]
    buckets.take("b")
    buckets.take("c")
    assert buckets.take("a", 4.0) == 0  # forgotten, and so full


def test_addresses_of_one_customer_count_as_one() -> None:
    assert address_key("192.0.2.7") == "192.0.2.7"
    assert address_key("::ffff:192.0.2.7") == "192.0.2.7"
    assert address_key("2001:db8::7") == address_key("2001:db8::ffff:1") == "2001:db8::/64"
    assert address_key("2001:db8:0:1::7") != address_key("2001:db8::7")
    assert address_key("fe80::1%eth0") == "fe80::/64"
    assert address_key("somewhere") == "somewhere"


def test_a_flood_is_counted_and_not_told_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines())
    monkeypatch.setattr(logger, "handlers", [handler])
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    journal = Journal(lines_per_minute=3)

    for _ in range(10):
        journal.refused(Refused(404, "closed-path", "not found"), "192.0.2.7", "GET", "/x" * 1000)
    journal.refused(Refused(401, "revoked", "gone", "SHA256:x", "kitchen"), "192.0.2.7", "POST", '/a"\n')
    now = 61.0
    journal.refused(Refused(404, "closed-path", "not found"), "192.0.2.7")

    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["reason"] for line in lines] == ["closed-path"] * 3 + ["revoked", "closed-path"]
    assert lines[-1]["left_out_before"] == 7
    assert lines[3]["path"] == '/a"\n'
    assert lines[3]["site"] == "kitchen"
    assert len(lines[0]["path"]) == 120
    assert journal.metrics.get_sample_value("zk0_gateway_refused_total", {"reason": "closed-path"}) == 11
