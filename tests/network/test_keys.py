"""A site's keys are what Flower and ssh-keygen take, and no other kind gets in."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from flwr.cli.supernode.register import try_load_public_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from zk0.errors import StageError
from zk0.network.security.keys import NodeKey, PublicKey

SSH_KEYGEN = shutil.which("ssh-keygen")


def line_of(key: object) -> str:
    public = key.public_key()  # type: ignore[attr-defined]
    return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def test_flower_takes_the_pair(tmp_path: Path) -> None:
    key = NodeKey.create(tmp_path / "site", "kitchen arm")

    private = serialization.load_ssh_private_key(key.path.read_bytes(), password=None)  # as flower-supernode does
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert try_load_public_key(key.public_path) == public_key_to_bytes(private.public_key()) == key.public.pem
    assert key.public_path.read_text().endswith(" kitchen arm\n")
    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.folder.stat().st_mode) == 0o700


@pytest.mark.skipif(SSH_KEYGEN is None, reason="needs ssh-keygen")
def test_the_fingerprint_is_ssh_keygens(tmp_path: Path) -> None:
    key = NodeKey.create(tmp_path / "site")
    told = subprocess.run(["ssh-keygen", "-lf", key.public_path], capture_output=True, text=True, check=True).stdout

    assert told.split()[1] == key.fingerprint


def test_known_fingerprint() -> None:
    line = (
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPSh"
        "OUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU="
    )  # the generator of P-256: the public key of the private key 1

    assert PublicKey.parse(line + " somebody@somewhere").line == line
    assert PublicKey.parse(line).fingerprint == "SHA256:SFMVDOrhOSBssOVH9hIcK/Z2XVf1oSVMjNCL8u2aICY"


def test_a_pair_comes_back(tmp_path: Path) -> None:
    made = NodeKey.create(tmp_path / "site")

    assert NodeKey.open(made.folder) == made
    assert PublicKey.read(made.public_path) == made.public
    assert PublicKey.read(made.public_path.read_text()) == made.public
    assert PublicKey.read(str(made.public_path)) == made.public


def test_a_pair_is_never_overwritten(tmp_path: Path) -> None:
    made = NodeKey.create(tmp_path / "site")
    before = made.path.read_bytes()

    with pytest.raises(StageError, match=r"site\.key is there already"):
        NodeKey.create(made.folder)
    assert made.path.read_bytes() == before


def test_other_kinds_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"a key of kind 'ssh-ed25519'.*ecdsa"):
        PublicKey.parse(line_of(ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(StageError, match="a key of kind 'ssh-rsa'"):
        PublicKey.parse(line_of(rsa.generate_private_key(65537, 2048)))
    with pytest.raises(StageError, match=r"a key of kind 'sk-ecdsa-sha2-nistp256@openssh\.com'"):
        PublicKey.parse("sk-ecdsa-sha2-nistp256@openssh.com AAAA")
    with pytest.raises(StageError, match="holds no such key"):
        PublicKey.parse("hello")
    with pytest.raises(StageError, match="is damaged"):
        PublicKey.parse(line_of(ec.generate_private_key(ec.SECP384R1()))[:-30])
    with pytest.raises(StageError, match=r"there is no file .*nothing\.pub"):
        PublicKey.read(tmp_path / "nothing.pub")


def test_a_private_key_is_not_taken_for_a_public_one(tmp_path: Path) -> None:
    made = NodeKey.create(tmp_path / "site")

    with pytest.raises(StageError, match="is a private key: it must never leave its site"):
        PublicKey.read(made.path)
    with pytest.raises(StageError, match="is a private key"):
        PublicKey.read(made.path.read_text())


def test_unfit_private_keys_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    with pytest.raises(StageError, match=r"site\.key is missing; `zk0 client keys`"):
        NodeKey.open(folder)

    made = NodeKey.create(folder)
    made.path.chmod(0o604)
    with pytest.raises(StageError, match="permissions are 0604"):
        NodeKey.open(folder)

    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    made.path.write_bytes(other)
    made.path.chmod(0o600)
    with pytest.raises(StageError, match="holds a Ed25519PrivateKey"):
        NodeKey.open(folder)

    made.path.write_bytes(b"nonsense")
    with pytest.raises(StageError, match="holds no private key"):
        NodeKey.open(folder)
