"""What passes the only door to the network and what does not, with Flower's own SuperLink, nodes and commands."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from flwr.proto.control_pb2 import ListNodesRequest
from flwr.proto.fleet_pb2 import (
    PullMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from gateway_traffic import (
    activated,
    counters,
    node_of,
    raw_request,
    refusals,
    status_of,
    tls_socket,
)
from network_services import BIN, Federation, fleet, free_port, service, signed_headers, wait_until

from zk0.network.security.files import renew
from zk0.network.security.keys import NodeKey

# What passes


def test_a_registered_nodes_requests_reach_the_superlink(federation: Federation, kitchen: NodeKey) -> None:
    with fleet(federation.gateway_address, federation.authority, kitchen) as client:
        node = activated(client, kitchen)
        assert client.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=node, heartbeat_interval=30)).success
        assert not client.PullMessages(PullMessagesRequest(node=node)).messages_list

    assert node.node_id == federation.registry.site("kitchen").node_id
    with federation.control() as client:
        nodes = {one.node_id: one for one in client.ListNodes(ListNodesRequest()).nodes_info}
    assert nodes[node.node_id].status == "online"
    assert nodes[node.node_id].name == "kitchen"


def test_health_passes_without_a_key(https: httpx.Client) -> None:
    assert https.get("/health").status_code == 200
    assert https.head("/health").status_code == 200


def test_what_passes_is_counted(federation: Federation, kitchen: NodeKey) -> None:
    path = "/v1/fleet/push-object"
    before = counters(federation)

    with fleet(federation.gateway_address, federation.authority, kitchen) as client:
        node = node_of(federation, "kitchen")
        client.PullMessages(PullMessagesRequest(node=node))
        with pytest.raises(httpx.HTTPStatusError):  # there is no such run, says the SuperLink
            client.PushObject(PushObjectRequest(node=node, run_id=1, object_id="a" * 64, object_content=bytes(300_000)))

    after = counters(federation)
    assert after["zk0_gateway_requests_total{/v1/fleet/pull-messages,200}"] >= 1
    passed = {name: after[name] - before.get(name, 0) for name in after if f"requests_total{{{path}" in name}
    assert sum(passed.values()) == 1
    assert after["zk0_gateway_bytes_total{up,kitchen}"] - before.get("zk0_gateway_bytes_total{up,kitchen}", 0) > 300_000
    assert time.time() - after["zk0_gateway_site_seen_timestamp_seconds{kitchen}"] < 60
    assert after["zk0_gateway_certificate_expires_timestamp_seconds{}"] > time.time() + 300 * 86400


def test_what_the_superlink_says_is_passed_back(federation: Federation, kitchen: NodeKey) -> None:
    with (
        fleet(federation.gateway_address, federation.authority, kitchen) as client,
        pytest.raises(httpx.HTTPStatusError) as error,
    ):
        client.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=Node(node_id=1), heartbeat_interval=30))

    assert status_of(error) == 401
    assert error.value.response.json() == {"detail": "Invalid SuperNode authentication"}  # its words, not the gateway's


# Paths


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/list-runs",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/runtime/push-messages",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/fleet/pull-messages%2f..%2f..%2fcontrol%2flist-runs",
        "//v1/fleet/pull-messages",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/pull-messages?x=1",
        "/docs",
        "/openapi.json",
        "/metrics",
        "/",
    ],
)
def test_every_other_path_is_closed_even_to_sites(federation: Federation, kitchen: NodeKey, path: str) -> None:
    superlink = federation.superlink.log.stat().st_size
    status, body = raw_request(federation, path, signed_headers(kitchen))

    assert (status, json.loads(body)) == (404, {"detail": "not found"})
    assert path.encode() not in federation.superlink.log.read_bytes()[superlink:]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "CONNECT"])
def test_other_methods_are_closed(federation: Federation, kitchen: NodeKey, method: str) -> None:
    assert raw_request(federation, "/v1/fleet/pull-messages", signed_headers(kitchen), method)[0] == 404


# A whole node, and the end


def supernode(federation: Federation, key: NodeKey) -> list[str | Path]:
    return [
        *(BIN / "flower-supernode", "--superlink", federation.gateway_address),
        *("--root-certificates", federation.authority, "--auth-supernode-private-key", key.path),
        *("--port", str(free_port())),
    ]


def test_flowers_supernode_connects_and_stops_when_it_is_revoked(federation: Federation, tmp_path: Path) -> None:
    key, site = federation.admitted("whole-node")

    def online() -> bool:
        with federation.control() as client:
            nodes = {node.node_id: node.status for node in client.ListNodes(ListNodesRequest()).nodes_info}
        return nodes[site.node_id] == "online"

    env = {"FLWR_HOME": str(tmp_path / "home")}
    with service(supernode(federation, key), tmp_path / "supernode.log", env, tmp_path) as node:
        wait_until(online, f"the node online; it says: {node.text}")
        pulled = "zk0_gateway_requests_total{/v1/fleet/pull-messages,200}"
        before = counters(federation).get(pulled, 0)
        wait_until(lambda: counters(federation)[pulled] > before, "its asking for work")

        federation.registry.revoke("whole-node", "laptop stolen")

        # It asks every three seconds, and stops itself at the first refusal.
        wait_until(lambda: node.process.poll() is not None, f"the node's end; it says: {node.text}")
    assert refusals(federation, "revoked")[-1]["site"] == "whole-node"


def test_a_new_certificate_is_taken_while_the_gateway_runs(federation: Federation, https: httpx.Client) -> None:
    with tls_socket(federation) as connection:
        before = connection.getpeercert(binary_form=True)

    renew(federation.places.folder, days=100)

    def served() -> bytes | None:
        with tls_socket(federation) as connection:
            return connection.getpeercert(binary_form=True)

    wait_until(lambda: served() != before, "a new certificate", 20)
    assert https.get("/health").status_code == 200
    assert "certificate-taken" in federation.gateway.text


def test_it_stops_cleanly(federation: Federation, tmp_path: Path) -> None:
    """A second gateway: while the SuperLink is away it says so, and SIGTERM ends it with 0."""
    from zk0.network.gateway.config import GatewayConfig

    port = free_port()
    config = GatewayConfig.of(
        federation.places, host="127.0.0.1", port=port, upstream=f"https://127.0.0.1:{free_port()}"
    )
    config.write(tmp_path / "gateway.yaml")
    words = [BIN / "python", "-m", "zk0.network.gateway", "--config", tmp_path / "gateway.yaml"]
    context = ssl.create_default_context(cafile=str(federation.authority))
    with service(words, tmp_path / "gateway.log") as gateway:
        wait_until(lambda: "listening" in gateway.text, f"its start; it says: {gateway.text}")
        answer = httpx.get(f"https://127.0.0.1:{port}/health", verify=context, trust_env=False)
        assert answer.status_code == 502  # Flower's node tries again
        assert gateway.stop() == 0
        assert '"event": "stopped"' in gateway.text

    with socket.create_server(("127.0.0.1", port)):
        taken = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, timeout=60)
    assert taken.returncode == 1
    assert f"error: the gateway cannot listen on 127.0.0.1 port {port}" in taken.stderr
