"""`zk0 security` and `zk0 site` as an operator types them, and a SuperLink that would leave a door open."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from network_services import OFFLINE, QUIET, Federation, free_port, superlink_words
from typer.testing import CliRunner, Result

from zk0.cli.app import app
from zk0.errors import StageError
from zk0.network.config import is_loopback
from zk0.network.security.authority import Authority
from zk0.network.security.files import GATEWAY, SUPERLINK, Places, initialise, read_operator_token
from zk0.network.security.invitation import Invitation
from zk0.network.security.keys import NodeKey


def zk0(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def message(result: Result) -> str:
    """What a person would see of a mendable error."""
    assert isinstance(result.exception, StageError), result.output
    return str(result.exception)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "security"
    assert zk0("security", "init", "--host", "robots.example.org", "--folder", made).exit_code == 0
    return made


def test_init_makes_all_that_a_server_needs(folder: Path) -> None:
    places = Places(folder)
    authority = Authority.open(places.authority)

    assert authority.server(GATEWAY).hosts == ("robots.example.org", "localhost", "127.0.0.1", "::1")
    assert authority.server(SUPERLINK).hosts == ("localhost", "127.0.0.1", "::1")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for secret in (places.operator_token, places.superexec_secret):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert len(secret.read_bytes()) >= 43
    assert "no sites yet" in zk0("site", "list", "--folder", folder).output


def test_git_takes_no_secret_whatever_its_folder_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders that people choose stand in no .gitignore of the project."""
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    for words in (
        ("security", "init", "--host", "localhost", "--folder", "federation-keys"),
        ("client", "keys", "--keys", "kitchen", "--name", "kitchen"),
        ("backup", "kept/today.tar.gz"),
    ):
        if words[0] == "backup":
            Path("federation-keys").rename("security")
        assert zk0(*words).exit_code == 0, words

    taken = subprocess.run(
        ["git", "add", "--all", "--dry-run"], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert Path("kept/today.tar.gz").is_file() and Path("kitchen/site.key").is_file()
    assert taken.stdout == ""


def test_init_overwrites_nothing_and_leaves_nothing_half_made(folder: Path, tmp_path: Path) -> None:
    again = zk0("security", "init", "--host", "robots.example.org", "--folder", folder)
    assert "nothing overwrites them" in message(again)

    wrong = zk0("security", "init", "--host", "https://x", "--folder", tmp_path / "other")
    assert "neither a host name nor an IP address" in message(wrong)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["security"]


def test_show_tells_fingerprints_and_no_secret(folder: Path) -> None:
    shown = zk0("security", "show", "--folder", folder)

    authority = Authority.open(folder / "authority")
    assert shown.exit_code == 0
    assert authority.fingerprint in shown.output
    assert authority.server(GATEWAY).fingerprint in shown.output
    assert read_operator_token(folder / "operator.token") not in shown.output


def test_show_fails_when_one_has_expired_and_rotate_mends_it(folder: Path) -> None:
    authority = Authority.open(folder / "authority")
    authority.rotate(days=1, name=GATEWAY, start=datetime.now(UTC) - timedelta(days=2))

    assert zk0("security", "show", "--folder", folder).exit_code == 1
    rotated = zk0("security", "rotate", "--folder", folder, "--host", "192.0.2.7")
    assert rotated.exit_code == 0
    assert zk0("security", "show", "--folder", folder).exit_code == 0
    assert authority.server(GATEWAY).hosts == ("192.0.2.7", "localhost", "127.0.0.1", "::1")


def test_an_owner_makes_a_key_pair_once(tmp_path: Path) -> None:
    made = zk0("client", "keys", "--keys", tmp_path / "keys", "--name", "kitchen")

    pair = NodeKey.open(tmp_path / "keys")
    assert made.exit_code == 0 and str(pair.public_path) in made.output and pair.fingerprint in made.output
    assert pair.public_path.read_text().strip().endswith(" kitchen")
    assert "is there already, and nothing overwrites a key" in message(
        zk0("client", "keys", "--keys", tmp_path / "keys")
    )


def test_a_site_from_its_key_to_its_end(folder: Path, tmp_path: Path) -> None:
    key, new = NodeKey.create(tmp_path / "key"), NodeKey.create(tmp_path / "new")
    where = ("--server", "robots.example.org:9443", "--folder", folder)

    admitted = zk0("site", "admit", "kitchen", key.public_path, *where)
    assert admitted.exit_code == 0, admitted.exception
    assert Authority.open(folder / "authority").fingerprint in admitted.output
    Invitation.read(folder / "invitations" / "kitchen.json").check(key)
    assert "is site kitchen's" in message(zk0("site", "admit", "lab", key.public_path, *where))

    out = tmp_path / "new.json"
    assert zk0("site", "rotate", "kitchen", new.public_path.read_text(), *where, "--out", out).exit_code == 0
    Invitation.read(out).check(new)
    assert zk0("site", "invite", "kitchen", *where).exit_code == 0

    assert "say why" in message(zk0("site", "revoke", "kitchen", "--why", " ", "--folder", folder))
    assert zk0("site", "revoke", "kitchen", "--why", "laptop stolen", "--folder", folder).exit_code == 0
    listed = " ".join(zk0("site", "list", "--folder", folder).output.split())
    assert "kitchen" in listed
    assert "revoked" in listed


def test_sync_tells_the_superlink(federation: Federation, tmp_path: Path) -> None:
    key = NodeKey.create(tmp_path / "key")
    federation.registry.admit("synced", key.public)
    words = ("site", "sync", "--superlink", federation.superlink_address, "--folder", federation.places.folder)

    assert "site synced registered as node" in zk0(*words).output
    assert federation.registry.site("synced").node_id is not None
    assert "nothing to change" in zk0(*words).output
    away = zk0("site", "sync", "--superlink", f"127.0.0.1:{free_port()}", "--folder", federation.places.folder)
    assert "cannot be reached" in message(away)


def test_a_guessable_token_is_refused(folder: Path) -> None:
    (folder / "operator.token").write_text("secret")

    with pytest.raises(StageError, match="holds no token"):
        read_operator_token(Places(folder).operator_token)


@pytest.mark.parametrize(
    ("left_out", "added", "told"),
    [
        (("--ssl-ca-certfile", "--ssl-certfile", "--ssl-keyfile"), ("--insecure",), "requires encrypted TLS"),
        (("--host",), ("--host", "0.0.0.0"), "is on the network, where only the gateway may be"),
        (("--enable-supernode-auth",), (), "any node may join"),
        (("--isolation",), (), "may take the ServerApp's work"),
        (("--superexec-auth-secret-file",), (), "may take the ServerApp's work"),
        (("--operator-token",), ("--operator-token", "nowhere"), "nowhere is missing"),
    ],
)
def test_a_superlink_with_an_open_door_does_not_start(
    tmp_path: Path, left_out: tuple[str, ...], added: tuple[str, ...], told: str
) -> None:
    places = initialise(tmp_path / "security", ["127.0.0.1"], "arms")
    words = [str(word) for word in superlink_words(places, free_port(), tmp_path / "state.db")]
    for name in left_out:
        place = words.index(name)
        del words[place : place + (1 if name == "--enable-supernode-auth" else 2)]

    done = subprocess.run(
        [*words, *added],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **QUIET, **OFFLINE, "FLWR_HOME": str(tmp_path / "home")},
    )

    assert done.returncode
    assert told in done.stdout + done.stderr


def test_what_is_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.0.2.7", "robots.example.org", "")))


def test_help_and_site_commands_import_nothing_heavy() -> None:
    code = (
        "import sys, zk0.cli.app; print([m for m in ('torch', 'lerobot', 'flwr', 'cryptography') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
