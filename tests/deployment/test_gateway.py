"""What passes the only door to the network and what does not, with Flower's own SuperLink, nodes and commands."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import Message, Metadata, PushObjectRequest
from flwr.proto.node_pb2 import Node
from network_services import BIN, Federation, fleet, free_port, service, signed_headers, wait_until
from prometheus_client.parser import text_string_to_metric_families

from zk0.deployment.operator import prepare_flower_home, register_sites
from zk0.deployment.security.keys import NodeKey
from zk0.deployment.security.places import renew
from zk0.errors import StageError

PROTOBUF = {"content-type": "application/protobuf"}


@pytest.fixture
def https(federation: Federation) -> Iterator[httpx.Client]:
    """A stranger who has nothing but the authority's certificate."""
    context = ssl.create_default_context(cafile=str(federation.authority))
    with httpx.Client(base_url=f"https://{federation.gateway_address}", verify=context, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def kitchen(federation: Federation) -> NodeKey:
    """An admitted site that no test changes."""
    return federation.admitted("kitchen")[0]


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


# Keys


def test_a_request_without_a_key_is_refused(https: httpx.Client) -> None:
    answer = https.post("/v1/fleet/pull-messages", headers=PROTOBUF)

    assert answer.status_code == 401
    assert answer.json() == {"detail": "only nodes that prove their key are let in"}


def test_an_unregistered_key_is_refused(federation: Federation, tmp_path: Path) -> None:
    stranger = NodeKey.create(tmp_path / "stranger")
    with fleet(federation.gateway_address, federation.authority, stranger) as client:
        for request in (client.ActivateNode, client.RegisterNode):
            kind = ActivateNodeRequest if request == client.ActivateNode else RegisterNodeFleetRequest
            with pytest.raises(httpx.HTTPStatusError) as error:
                request(kind(public_key=stranger.public.pem))
            assert status_of(error) == (401 if request == client.ActivateNode else 404)

    line = refusals(federation, "unknown-key")[-1]
    assert line["fingerprint"] == stranger.fingerprint
    assert line["address"] == "127.0.0.1"
    assert line["path"] == "/v1/fleet/activate-node"
    assert counters(federation)["zk0_gateway_refused_total{unknown-key}"] >= 1


def test_a_revoked_key_is_refused_from_the_next_request_on(federation: Federation) -> None:
    key, _ = federation.admitted("revoked-arm")
    with fleet(federation.gateway_address, federation.authority, key) as client:
        node = activated(client, key)
        client.PullMessages(PullMessagesRequest(node=node))

        federation.registry.revoke("revoked-arm", "laptop stolen")

        with pytest.raises(httpx.HTTPStatusError) as error:
            client.PullMessages(PullMessagesRequest(node=node))

    assert status_of(error) == 401
    assert error.value.response.json() == {"detail": "site revoked-arm was revoked: laptop stolen"}
    assert refusals(federation, "revoked")[-1]["site"] == "revoked-arm"


def test_the_superlink_forgets_a_revoked_key_too(federation: Federation) -> None:
    key, site = federation.admitted("forgotten-arm")
    with fleet(federation.superlink_address, federation.authority, key) as client:  # past the gateway
        node = activated(client, key)
        federation.registry.revoke("forgotten-arm", "gone")
        client.PullMessages(PullMessagesRequest(node=node))  # so far it does not know

        with federation.control() as control:
            changes = register_sites(federation.registry, control)
            assert changes == [f"node {site.node_id} unregistered: no admitted site has its key"]
            assert register_sites(federation.registry, control) == []

        with pytest.raises(httpx.HTTPStatusError) as error:
            client.PullMessages(PullMessagesRequest(node=node))
    assert status_of(error) == 401
    assert federation.registry.site("forgotten-arm").node_id is None


def test_a_rotated_key_takes_the_place_of_the_old_one(federation: Federation, tmp_path: Path) -> None:
    old, site = federation.admitted("rotated-arm")
    new = NodeKey.create(tmp_path / "new")

    federation.registry.rotate("rotated-arm", new.public)
    with federation.control() as control:
        register_sites(federation.registry, control)

    with fleet(federation.gateway_address, federation.authority, old) as client:
        with pytest.raises(httpx.HTTPStatusError) as error:
            activated(client, old)
        assert error.value.response.json() == {"detail": "site rotated-arm has a new key"}
    with fleet(federation.gateway_address, federation.authority, new) as client:
        node = activated(client, new)
    assert node.node_id == federation.registry.site("rotated-arm").node_id != site.node_id


def test_nobody_is_let_in_while_the_list_cannot_be_read(federation: Federation, kitchen: NodeKey) -> None:
    content, node_of_kitchen = federation.places.registry.read_text(), node_of(federation, "kitchen")
    try:
        federation.places.registry.write_text("{")
        with fleet(federation.gateway_address, federation.authority, kitchen) as client:
            with pytest.raises(httpx.HTTPStatusError) as error:
                client.PullMessages(PullMessagesRequest(node=node_of_kitchen))
            assert status_of(error) == 503  # Flower's node tries again
    finally:
        federation.places.registry.write_text(content)

    assert "is no list of sites" in refusals(federation, "no-registry")[-1]["detail"]
    with fleet(federation.gateway_address, federation.authority, kitchen) as client:
        client.PullMessages(PullMessagesRequest(node=node_of_kitchen))


# Signatures


def post(https: httpx.Client, headers: dict[str, str]) -> tuple[int, str]:
    """A request that, once past the gateway, the SuperLink can do nothing with."""
    answer = https.post("/v1/fleet/pull-messages", headers={**PROTOBUF, **headers}, content=b"")
    return answer.status_code, answer.json()["detail"]


def test_a_signature_counts_once(https: httpx.Client, kitchen: NodeKey) -> None:
    headers = signed_headers(kitchen)

    assert post(https, headers) == (401, "Invalid SuperNode authentication")  # the SuperLink: no node in the request
    assert post(https, headers) == (401, "the request's signature was used before")


def test_a_changed_signature_counts_as_the_same(https: httpx.Client, kitchen: NodeKey) -> None:
    from base64 import b64decode, b64encode

    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

    order = int(  # of P-384
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
    )
    headers = signed_headers(kitchen)
    post(https, headers)
    r, s = decode_dss_signature(b64decode(headers["flwr-signature"]))
    headers["flwr-signature"] = b64encode(encode_dss_signature(r, order - s)).decode()  # as valid as before

    assert post(https, headers) == (401, "the request's signature was used before")


@pytest.mark.parametrize("minutes", [-10, 10])
def test_an_old_or_early_signature_is_refused(
    https: httpx.Client, kitchen: NodeKey, minutes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flwr.supernode.node_auth_http_interceptor as flower
    from flwr.supercore.date import now

    monkeypatch.setattr(flower, "now", lambda: now() + timedelta(minutes=minutes))  # the node's clock is wrong
    headers = signed_headers(kitchen)

    status, detail = post(https, headers)
    assert status == 401
    assert "set the clock" in detail


def test_what_was_not_signed_is_refused(https: httpx.Client, kitchen: NodeKey, tmp_path: Path) -> None:
    right, other = signed_headers(kitchen), signed_headers(NodeKey.create(tmp_path / "other"))

    def refused(**changes: str) -> str:
        return post(https, {**right, **{f"flwr-{name.replace('_', '-')}": value for name, value in changes.items()}})[1]

    assert refused(signature=other["flwr-signature"]) == "the request's signature is wrong"
    assert refused(signature="AAAA") == "the request's signature is wrong"
    assert refused(signature="not base64!") == "the request's signature is wrong"
    assert refused(timestamp=other["flwr-timestamp"]) == "the request's signature is wrong"
    assert "set the clock" in refused(timestamp="yesterday")
    assert "set the clock" in refused(timestamp="2026-11-24T12:00:00")  # without a zone
    assert refused(public_key="AAAA") == "the request's key is not one of Flower's nodes'"
    assert "too long" in refused(signature="A" * 5000)
    assert post(https, right)[1] == "Invalid SuperNode authentication"  # none of them used it up


def test_no_header_reaches_the_log(federation: Federation, https: httpx.Client, kitchen: NodeKey) -> None:
    headers = signed_headers(kitchen)
    secret = "Bearer do-not-log-me"
    post(https, {**headers, "authorization": secret})
    post(https, {**headers, "authorization": secret})
    https.get("/v1/control/list-runs", headers={"authorization": secret})

    for log in (federation.gateway.text, federation.superlink.text):
        assert "do-not-log-me" not in log
        assert headers["flwr-signature"] not in log


# Whose reply


def test_a_reply_in_another_sites_name_is_refused(federation: Federation, kitchen: NodeKey) -> None:
    _, victim = federation.admitted("victim")
    assert victim.node_id is not None

    def pushed(node: Node, source: int) -> int:
        head = Metadata(run_id=1, message_id="a" * 64, src_node_id=source, dst_node_id=SUPERLINK_NODE_ID, ttl=60.0)
        with (
            fleet(federation.gateway_address, federation.authority, kitchen) as client,
            pytest.raises(httpx.HTTPStatusError) as error,
        ):
            client.PushMessages(PushMessagesRequest(node=node, messages_list=[Message(metadata=head)]))
        return status_of(error)

    own = node_of(federation, "kitchen")
    before = len(refusals(federation, "other-sender"))
    assert pushed(own, victim.node_id) == 401
    assert pushed(Node(node_id=victim.node_id), victim.node_id) == 401
    assert len(refusals(federation, "other-sender")) == before + 2
    pushed(own, own.node_id)  # its own one reaches the SuperLink, which knows no such run
    assert len(refusals(federation, "other-sender")) == before + 2
    assert refusals(federation, "other-sender")[-1]["site"] == "kitchen"


def test_a_reply_that_is_none_is_refused(federation: Federation, kitchen: NodeKey) -> None:
    body = b"\xff" * 100
    status, answer = raw_request(federation, "/v1/fleet/push-messages", signed_headers(kitchen), body=body)

    assert (status, json.loads(answer)) == (400, {"detail": "the request is no list of messages"})


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


# The operator's door


def test_control_takes_the_operators_token_only(federation: Federation) -> None:
    with federation.control() as client:
        assert not client.ListRuns(ListRunsRequest()).run_dict
    with pytest.raises(StageError, match="runs with another operator token"), federation.control("wrong") as client:
        client.ListRuns(ListRunsRequest())
    context = ssl.create_default_context(cafile=str(federation.authority))
    url = f"https://{federation.superlink_address}/v1/control/list-runs"
    assert httpx.post(url, verify=context, headers=PROTOBUF, trust_env=False).status_code == 401


def test_nobody_takes_the_serverapps_work(federation: Federation) -> None:
    context = ssl.create_default_context(cafile=str(federation.authority))
    url = f"https://{federation.superlink_address}/v1/runtime/acquire-task"
    from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

    versions = dict(RuntimeVersionMetadata.from_local_component("flower-superexec").as_metadata())
    answer = httpx.post(url, verify=context, headers={**PROTOBUF, **versions}, trust_env=False)
    assert answer.status_code == 401
    assert answer.json()["code"] == 1008  # Runtime authentication failed


APP = """
[project]
name = "strange-app"
version = "1.0.0"
license = { file = "LICENSE" }
dependencies = []
[tool.flwr.app]
publisher = "stranger"
[tool.flwr.app.components]
serverapp = "app:server"
clientapp = "app:client"
"""


def flwr(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    return subprocess.run(
        [str(BIN / "flwr"), *words], env=env, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_strangers_run_is_refused_and_the_operators_is_taken(federation: Federation, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(APP)
    (app / "LICENSE").write_text("none")
    (app / "app.py").write_text("from flwr.clientapp import ClientApp\nclient = server = ClientApp()\n")
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    entry = '[superlink.{}]\naddress = "{}"\nroot-certificates = "{}"\n'
    (stranger / "config.toml").write_text(
        entry.format("gateway", federation.gateway_address, federation.authority)
        + entry.format("superlink", federation.superlink_address, federation.authority)
    )

    for connection in ("gateway", "superlink"):
        refused = flwr(stranger, "run", str(app), connection)
        assert refused.returncode, refused.stdout
    with federation.control() as client:
        assert not client.ListRuns(ListRunsRequest()).run_dict
    assert any(line["path"] == "/v1/control/start-run" for line in refusals(federation, "closed-path"))

    home = Path(prepare_flower_home(federation.places, federation.superlink_address)["FLWR_HOME"])
    taken = flwr(home, "run", str(app), "zk0")
    assert taken.returncode == 0, taken.stdout + taken.stderr
    with federation.control() as client:
        (run_id,) = client.ListRuns(ListRunsRequest()).run_dict
    assert flwr(home, "stop", str(run_id), "zk0").returncode == 0
    for path in home.iterdir():
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path


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
    from zk0.deployment.gateway.config import GatewayConfig

    port = free_port()
    config = GatewayConfig.of(
        federation.places, host="127.0.0.1", port=port, upstream=f"https://127.0.0.1:{free_port()}"
    )
    config.write(tmp_path / "gateway.yaml")
    words = [BIN / "python", "-m", "zk0.deployment.gateway", "--config", tmp_path / "gateway.yaml"]
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
