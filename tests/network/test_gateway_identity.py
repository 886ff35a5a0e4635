"""Whose requests pass: keys, signatures, and whose reply it is."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.message_pb2 import Message, Metadata
from flwr.proto.node_pb2 import Node
from gateway_traffic import (
    PROTOBUF,
    activated,
    counters,
    node_of,
    post,
    raw_request,
    refusals,
    status_of,
)
from network_services import Federation, fleet, signed_headers

from zk0.network.security.keys import NodeKey
from zk0.network.server.control import register_sites

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
