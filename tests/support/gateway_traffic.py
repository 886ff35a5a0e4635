"""What tests send through a gateway, and what they read of it afterwards."""

from __future__ import annotations

import json
import re
import socket
import ssl
from typing import Any

import httpx
import pytest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
)
from flwr.proto.node_pb2 import Node
from network_services import Federation
from prometheus_client.parser import text_string_to_metric_families

from zk0.network.security.keys import NodeKey

PROTOBUF = {"content-type": "application/protobuf"}


def counters(federation: Federation) -> dict[str, float]:
    """Prometheus' view: ``name{label=value,...}`` to the value."""
    text = httpx.get(f"http://127.0.0.1:{federation.metrics_port}/metrics", trust_env=False).text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(sample.labels[name] for name in sorted(sample.labels))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def refusals(federation: Federation, reason: str) -> list[dict[str, Any]]:
    """The gateway's lines of one kind."""
    lines = [json.loads(line) for line in federation.gateway.text.splitlines()]
    return [line for line in lines if line.get("reason") == reason]


def activated(client: Any, key: NodeKey) -> Node:
    """Bring a node online as Flower's SuperNode does."""
    answer = client.ActivateNode(ActivateNodeRequest(public_key=key.public.pem, heartbeat_interval=30))
    return Node(node_id=answer.node_id)


def node_of(federation: Federation, name: str) -> Node:
    """A registered site's node; Flower takes its requests whether it is online or not."""
    number = federation.registry.site(name).node_id
    assert number is not None
    return Node(node_id=number)


def status_of(error: pytest.ExceptionInfo[httpx.HTTPStatusError]) -> int:
    return error.value.response.status_code


def raw_request(
    federation: Federation, path: str, headers: dict[str, str], method: str = "POST", body: bytes = b""
) -> tuple[int, bytes]:
    """One request as it is written here, which no client library tidies up."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Type: application/protobuf"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "Connection: close"]
    with tls_socket(federation) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return read_answer(connection)


def tls_socket(federation: Federation) -> ssl.SSLSocket:
    """A TLS connection to the gateway."""
    context = ssl.create_default_context(cafile=str(federation.authority))
    plain = socket.create_connection(("127.0.0.1", federation.gateway_port), timeout=20)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def read_answer(connection: ssl.SSLSocket) -> tuple[int, bytes]:
    """Status and body of the answer, to the end of the connection; 0 where there was none."""
    answer = b""
    try:
        while block := connection.recv(65536):
            answer += block
    except (ConnectionError, ssl.SSLError):
        pass
    head, _, body = answer.partition(b"\r\n\r\n")
    match = re.match(rb"HTTP/1.1 (\d+)", head)
    return (int(match[1]) if match else 0), body


def post(https: httpx.Client, headers: dict[str, str]) -> tuple[int, str]:
    """A request that, once past the gateway, the SuperLink can do nothing with."""
    answer = https.post("/v1/fleet/pull-messages", headers={**PROTOBUF, **headers}, content=b"")
    return answer.status_code, answer.json()["detail"]
