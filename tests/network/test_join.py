"""A robot owner joins the real SuperLink behind its gateway, leaves, and is told what is wrong where something is."""

from __future__ import annotations

import contextlib
import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from docs_commands import documented, typed
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from gateway_traffic import PROTOBUF
from hub_server import COMMIT, lay_out_cache
from huggingface_hub import constants
from network_services import Federation, wait_until

from zk0.errors import StageError
from zk0.federation.site import open_site
from zk0.network.client.membership import Membership, find_membership
from zk0.network.client.node import NAMES, check_server
from zk0.network.client.status import site_status
from zk0.network.security.authority import Authority
from zk0.network.security.invitation import Invitation, admit_site
from zk0.network.security.keys import NodeKey
from zk0.network.server.control import register_sites
from zk0.services.process import Services


def invited(federation: Federation, name: str, folder: Path, server: str | None = None) -> tuple[Path, NodeKey]:
    """A site that was admitted, with its invitation in a folder."""
    key, site = federation.admitted(name)
    authority = Authority.open(federation.places.authority)
    path = folder / f"{name}.json"
    Invitation.issue(authority, "arms", server or federation.gateway_address, site).write(path)
    return path, key


SMALL = " --base random:nano --device cpu --threads 2"


def line(start: str) -> str:
    """A documented line, for the site of these tests: another has the name that the page uses."""
    return documented("join.md", start.replace("cellar", "kitchen")).replace("kitchen", "cellar")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, recorded: Path) -> Path:
    """An owner's project folder with a recording, without a params.yaml."""
    folder = tmp_path_factory.mktemp("an owners home")
    (folder / "cups").symlink_to(recorded)
    return folder


@pytest.fixture(scope="module")
def joined(federation: Federation, home: Path) -> Iterator[Membership]:
    """A site that has joined as the page says; stopped at the end."""
    authority = Authority.open(federation.places.authority)
    with contextlib.chdir(home):
        assert "site-keys/site.pub" in typed(line("zk0 client keys"))
    public = home / "site-keys" / "site.pub"
    sent = admit_site(federation.places.folder, "cellar", public, federation.gateway_address)
    shutil.copy(sent, home / "cellar.json")
    with federation.control() as client:
        register_sites(federation.registry, client)
    try:
        with contextlib.chdir(home):
            said = typed(f"{line('zk0 client join cellar.json --clip')}{SMALL} --authority {authority.fingerprint}")
        assert "site 'cellar' is connected as node" in said and authority.fingerprint in said
        yield find_membership(home)
    finally:
        Services(home / "memberships" / "cellar" / ".run").stop(NAMES)


def test_joining_connects(joined: Membership, federation: Federation) -> None:
    site = federation.registry.site("cellar")
    status = site_status(joined)
    assert status.connected and status.node == str(site.node_id) and joined.invitation.partition == site.partition
    assert open_site(joined.folder, site.partition, 10**9).manifest.site == "cellar"
    assert joined.node_demands == {
        "privacy-clip-norm": 1.0,
        "privacy-noise-multiplier": 1.0,
        "privacy-target-epsilon": 8.0,
    }


def test_status_tells_it(joined: Membership, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    said = typed(line("zk0 client status"))
    assert "connected as node" in said and "0 served, 0 not" in said and "trainer.log" in said
    assert '"client" "start" "cellar"' in typed(documented("join.md", "zk0 client boot  "))
    assert typed(documented("join.md", "zk0 client boot --cron")).startswith("@reboot ")


def test_the_key_never_leaves_and_no_service_logs_it(joined: Membership) -> None:
    lines = [line for line in joined.key.path.read_text().splitlines() if not line.startswith("-----")]
    logs = "".join(path.read_text() for path in (joined.folder / ".run").glob("*.log"))
    assert logs and not any(line in logs for line in lines)


def test_no_other_account_takes_the_nodes_work(joined: Membership) -> None:
    """Every account of the machine can reach loopback; the node's messages take a secret that only the site's has."""
    words = joined.services.running()["supernode"].cmdline()
    port = words[words.index("--port") + 1]
    versions = dict(RuntimeVersionMetadata.from_local_component("flower-superexec").as_metadata())
    answer = httpx.post(
        f"http://127.0.0.1:{port}/v1/runtime/acquire-task", headers={**PROTOBUF, **versions}, trust_env=False
    )
    assert answer.status_code == 401 and answer.json()["code"] == 1008  # Runtime authentication failed
    secret = joined.folder / ".run" / "private" / "superexec.secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600 and stat.S_IMODE(secret.parent.stat().st_mode) == 0o700


def test_a_second_joining_is_refused_while_it_runs(
    joined: Membership, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    with pytest.raises(StageError, match="takes part already"):
        typed(line("zk0 client join cellar.json --data") + SMALL)
    with pytest.raises(StageError, match="takes part already; `zk0 client status`"):
        typed(line("zk0 client start"))


def test_stop_start_leave_and_join_again(joined: Membership, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    before = {name: process.pid for name, process in joined.services.running().items()}
    joined.services.running()["trainer"].kill()
    wait_until(lambda: "trainer" not in joined.services.running(), "the trainer's end")
    assert "trainer ended, and is started again by itself" in site_status(joined).state
    wait_until(lambda: "trainer" in joined.services.running(), "the trainer's return")
    after = {name: process.pid for name, process in joined.services.running().items()}
    assert {name for name in NAMES if before[name] != after[name]} == {"trainer"} and site_status(joined).connected
    # of which one does not run any more, whatever became of it, `start` starts all
    joined.services.stop(["superexec"])
    assert "is connected as node" in typed(line("zk0 client start"))
    assert "stopped: superexec, supernode, trainer" in typed(line("zk0 client stop"))
    assert site_status(joined).state.startswith("stopped")
    said = typed(line("zk0 client leave"))
    assert 'zk0 site revoke cellar --why "its owner left"' in said and "nothing was running" in said
    assert (joined.folder / "data" / "manifests").is_dir()
    with pytest.raises(StageError, match="has left"):
        typed(line("zk0 client start"))
    assert site_status(find_membership(home)).state.startswith("left on")
    # and who changes their mind joins again, here without the demands
    assert "is connected as node" in typed(line("zk0 client join cellar.json --data") + SMALL)
    again = find_membership(home)
    assert again.left is None and not again.node_demands and site_status(again).connected


def test_data_of_the_hub_is_taken_at_its_commit(
    federation: Federation, tmp_path: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the Hub's cache, as where it cannot be reached; the services find it there, too."""
    monkeypatch.chdir(tmp_path)
    lay_out_cache(tmp_path / "hub", "owner/cups", "dataset", recorded)
    for name, value in (("HF_HUB_CACHE", str(tmp_path / "hub")), ("HF_HUB_OFFLINE", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))  # read when the library was imported
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    path, key = invited(federation, "porch", tmp_path)
    with federation.control() as client:
        register_sites(federation.registry, client)
    try:
        said = typed(f"zk0 client join {path} --data hub:owner/cups@{COMMIT} --fps 10 --keys {key.folder}{SMALL}")
        assert "site 'porch' is connected as node" in said
        site = open_site(find_membership(tmp_path).folder, federation.registry.site("porch").partition, 10**9)
        assert site.manifest.source == f"hub:owner/cups@{COMMIT}"
    finally:
        Services(tmp_path / "memberships" / "porch" / ".run").stop(NAMES)


def test_what_is_wrong_is_told_and_leaves_nothing(
    federation: Federation, tmp_path: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, key = invited(federation, "attic", tmp_path)
    join = f"zk0 client join {path} --data local:{recorded} --base random:nano --device cpu"
    with pytest.raises(StageError, match="`zk0 client keys` makes one"):
        typed(join)
    other = NodeKey.create(tmp_path / "others")
    with pytest.raises(StageError, match="this invitation is for the key"):
        typed(f"{join} --keys {other.folder}")
    with pytest.raises(StageError, match="somebody may have replaced it"):
        typed(f"{join} --keys {key.folder} --authority {'AB:' * 15}AB")
    with pytest.raises(StageError, match="checks failed"):
        typed(f"zk0 client join {path} --data local:nowhere --keys {key.folder} --base random:nano")
    changed = json.loads(path.read_text()) | {"server": "elsewhere.example.org:1"}
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    with pytest.raises(StageError, match="changed after the operator signed it"):
        typed(f"zk0 client join changed.json --data local:{recorded} --keys {key.folder}")
    assert not (tmp_path / "memberships").exists()


def test_another_server_and_an_absent_one_are_told_apart(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path, key = invited(federation, "garage", tmp_path, "127.0.0.1:9")
    with pytest.raises(StageError, match=r"127.0.0.1:9 does not answer"):  # before anything is recorded
        typed(f"zk0 client join {path} --data sim:push-red-cube-left --keys {key.folder} --base random:nano")
    assert "recording" not in capsys.readouterr().out and not (tmp_path / "memberships").exists()
    # the SuperLink's certificate is of the same authority, so a strange authority is what a poser has
    stranger = Authority.create(tmp_path / "stranger", "arms")
    ours = Invitation.read(invited(federation, "barn", tmp_path)[0])
    pem = (tmp_path / "stranger" / "ca.pem").read_text()
    assert stranger.fingerprint != ours.authority_fingerprint
    with pytest.raises(StageError, match="is not the federation's server"):
        check_server(ours.model_copy(update={"authority": pem}))
