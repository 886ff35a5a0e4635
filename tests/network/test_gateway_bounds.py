"""How large, slow and many requests may be, before the real SuperLink."""

from __future__ import annotations

import json
import socket
import ssl
import time

import httpx
import pytest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from gateway_traffic import (
    counters,
    raw_request,
    read_answer,
    refusals,
    status_of,
    tls_socket,
)
from network_services import Federation, fleet, signed_headers, wait_until

from zk0.network.security.keys import NodeKey

# Sizes


def test_an_oversized_request_is_refused_before_it_is_read(federation: Federation, kitchen: NodeKey) -> None:
    limit = 8 << 20
    request = PushObjectRequest(node=Node(node_id=1), run_id=1, object_id="a" * 64, object_content=bytes(limit + 1))
    before = counters(federation).get("zk0_gateway_bytes_total{up,kitchen}", 0)

    with (
        fleet(federation.gateway_address, federation.authority, kitchen) as client,
        pytest.raises(httpx.HTTPStatusError) as error,
    ):
        client.PushObject(request)

    assert status_of(error) == 413
    assert f"{limit} are the most" in error.value.response.json()["detail"]
    assert counters(federation).get("zk0_gateway_bytes_total{up,kitchen}", 0) == before
    assert refusals(federation, "too-large")[-1]["path"] == "/v1/fleet/push-object"


def test_a_huge_request_is_cut_off(federation: Federation, kitchen: NodeKey) -> None:
    head = "\r\n".join(
        ["POST /v1/fleet/push-object HTTP/1.1", "Host: x", "Content-Length: 999999999999"]
        + [f"{name}: {value}" for name, value in signed_headers(kitchen).items()]
    )
    sent = 0
    with tls_socket(federation) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n")
        try:
            while sent < 1 << 30:
                connection.sendall(bytes(1 << 20))
                sent += 1 << 20
        except (ConnectionError, ssl.SSLError):
            pass

    assert sent < 200 << 20


def test_small_requests_have_a_small_limit(federation: Federation, kitchen: NodeKey) -> None:
    path = "/v1/fleet/pull-messages"
    assert raw_request(federation, path, signed_headers(kitchen), body=bytes(300_000))[0] == 413


@pytest.mark.parametrize(
    "lengths",
    [[], ["Transfer-Encoding: chunked"], ["Content-Length: -1"], ["Content-Length: 5", "Content-Length: 6"]],
)
def test_a_request_that_does_not_say_how_long_it_is_is_refused(
    federation: Federation, kitchen: NodeKey, lengths: list[str]
) -> None:
    lines = ["POST /v1/fleet/pull-messages HTTP/1.1", "Host: x", *lengths, "Connection: close"]
    lines += [f"{name}: {value}" for name, value in signed_headers(kitchen).items()]
    with tls_socket(federation) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n0\r\n\r\n")
        assert read_answer(connection)[0] in (400, 411)


# Slow and half-open


def test_a_head_that_does_not_end_is_cut_off(federation: Federation) -> None:
    with tls_socket(federation) as connection:
        connection.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\n")
        began = time.monotonic()
        try:
            while time.monotonic() - began < 15:
                connection.sendall(b"X-Slow: 1\r\n")  # something all the time
                time.sleep(0.2)
        except (ConnectionError, ssl.SSLError):
            pass
        assert time.monotonic() - began < 10
    wait_until(lambda: refusals(federation, "slow-head"), "a line of it")


def test_an_idle_connection_is_cut_off(federation: Federation) -> None:
    with tls_socket(federation) as connection:
        assert read_answer(connection) == (0, b"")


def test_a_body_that_stops_is_refused(federation: Federation, kitchen: NodeKey) -> None:
    lines = ["POST /v1/fleet/pull-messages HTTP/1.1", "Host: x", "Content-Length: 1000"]
    lines += [f"{name}: {value}" for name, value in signed_headers(kitchen).items()]
    with tls_socket(federation) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\nonly this")
        status, body = read_answer(connection)

    assert (status, json.loads(body)) == (503, {"detail": "the request came too slowly"})


def test_plain_text_gets_nothing(federation: Federation) -> None:
    with socket.create_connection(("127.0.0.1", federation.gateway_port), timeout=20) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            answer = connection.recv(4096)
        except ConnectionError:
            answer = b""
    assert b"HTTP" not in answer


def test_one_address_gets_so_many_connections(federation: Federation, https: httpx.Client) -> None:
    held = [tls_socket(federation) for _ in range(60)]
    try:
        wait_until(lambda: refusals(federation, "too-many-connections"), "a refused connection", 20)
    finally:
        for connection in held:
            connection.close()
    wait_until(lambda: https.get("/health").status_code == 200, "the gateway's health")
