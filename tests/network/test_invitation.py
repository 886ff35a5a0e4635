"""An invitation is the operator's, for one key, whole, and without a secret."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from zk0.errors import StageError
from zk0.network.security.authority import Authority
from zk0.network.security.files import Places, initialise
from zk0.network.security.invitation import Invitation, admit_site, check_address, invite_site, rotate_site
from zk0.network.security.keys import NodeKey
from zk0.network.security.sites import SiteRegistry

SERVER = "robots.example.org:9443"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return initialise(tmp_path / "security", ["robots.example.org"], "arms")


@pytest.fixture
def key(tmp_path: Path) -> NodeKey:
    return NodeKey.create(tmp_path / "site")


def test_owner_and_operator_agree(places: Places, key: NodeKey) -> None:
    path = admit_site(places.folder, "kitchen", key.public_path, SERVER)

    found = Invitation.read(path)

    assert (found.federation, found.server, found.site, found.partition) == ("arms", SERVER, "kitchen", 0)
    assert found.key == key.fingerprint
    authority = Authority.open(places.authority)
    assert found.authority_fingerprint == authority.fingerprint
    assert found.certificate == authority.certificate
    found.check(key)
    found.check(key, authority.fingerprint)
    found.check(key, authority.fingerprint.lower().replace(":", " ")[:24])


def test_nothing_secret_is_in_it(places: Places, key: NodeKey) -> None:
    text = admit_site(places.folder, "kitchen", key.public_path, SERVER).read_text()

    assert "PRIVATE" not in text
    for secret in (places.operator_token, places.superexec_secret):
        assert secret.read_text() not in text


def test_it_is_for_one_key(places: Places, key: NodeKey, tmp_path: Path) -> None:
    other = NodeKey.create(tmp_path / "other")
    found = Invitation.read(admit_site(places.folder, "kitchen", key.public_path, SERVER))

    with pytest.raises(StageError, match=re.escape(f"this invitation is for the key {key.fingerprint}")):
        found.check(other)


@pytest.mark.parametrize(
    ("field", "value"),
    [("server", "evil.example.org:9443"), ("partition", 3), ("site", "lab"), ("key", "SHA256:x"), ("federation", "b")],
)
def test_a_changed_one_is_refused(places: Places, key: NodeKey, field: str, value: object) -> None:
    path = admit_site(places.folder, "kitchen", key.public_path, SERVER)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))

    with pytest.raises(StageError, match="was changed after the operator signed it"):
        Invitation.read(path)


def test_a_replaced_authority_is_found_by_its_fingerprint(places: Places, key: NodeKey, tmp_path: Path) -> None:
    operators = Authority.open(places.authority).fingerprint
    admit_site(places.folder, "kitchen", key.public_path, SERVER)
    evil = initialise(tmp_path / "evil", ["evil.example.org"], "arms")
    replaced = Invitation.read(admit_site(evil.folder, "kitchen", key.public_path, "evil.example.org:9443"))

    with pytest.raises(StageError, match="somebody may have replaced it on its way"):
        replaced.check(key, operators)
    with pytest.raises(StageError, match="somebody may have replaced it"):
        replaced.check(key, replaced.authority_fingerprint[:11])  # too short to say anything


def test_what_cannot_be_admitted_leaves_the_list_alone(places: Places, key: NodeKey) -> None:
    registry = SiteRegistry(places.registry)
    with pytest.raises(StageError, match="is no server address"):
        admit_site(places.folder, "kitchen", key.public_path, "robots.example.org")
    with pytest.raises(StageError, match="is a private key"):
        admit_site(places.folder, "kitchen", key.path, SERVER)
    (places.authority / "ca.key").chmod(0o644)
    with pytest.raises(StageError, match="is a secret"):
        admit_site(places.folder, "kitchen", key.public_path, SERVER)

    assert registry.sites() == ()


def test_rotation_and_moving_make_new_ones(places: Places, key: NodeKey, tmp_path: Path) -> None:
    admit_site(places.folder, "kitchen", key.public_path, SERVER)
    new = NodeKey.create(tmp_path / "new")

    rotated = Invitation.read(rotate_site(places.folder, "kitchen", new.public_path, SERVER))
    moved = Invitation.read(invite_site(places.folder, "kitchen", "192.0.2.7:9443", tmp_path / "moved.json"))

    rotated.check(new)
    assert (moved.server, moved.partition, moved.key) == ("192.0.2.7:9443", 0, new.fingerprint)
    SiteRegistry(places.registry).revoke("kitchen", "gone")
    with pytest.raises(StageError, match=r"is revoked \(gone\) and cannot be invited"):
        invite_site(places.folder, "kitchen", SERVER)


def test_what_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(StageError, match="there is no invitation"):
        Invitation.read(path)
    path.write_text('{"format": 1}')
    with pytest.raises(StageError, match="is no invitation"):
        Invitation.read(path)
    path.write_text("x" * 100_000)
    with pytest.raises(StageError, match="at most 65536 were expected"):
        Invitation.read(path)


def test_addresses() -> None:
    assert check_address("robots.example.org:9443") == ("robots.example.org", 9443)
    assert check_address("[2001:db8::7]:9443") == ("2001:db8::7", 9443)
    for wrong in ("robots.example.org", ":9443", "a:0", "a:70000", "https://a:9443", "2001:db8::7:9443", "a:９"):
        with pytest.raises(StageError):
            check_address(wrong)
