"""The list of sites: whose number is whose, and which key admits whom."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from zk0.errors import StageError
from zk0.network.security.keys import NodeKey, PublicKey
from zk0.network.security.sites import SiteRegistry


@pytest.fixture
def registry(tmp_path: Path) -> SiteRegistry:
    return SiteRegistry.create(tmp_path / "sites.json", "arms")


@pytest.fixture
def keys(tmp_path: Path) -> list[PublicKey]:
    return [NodeKey.create(tmp_path / f"key-{number}").public for number in range(4)]


def test_sites_get_numbers_in_turn_and_keep_them(registry: SiteRegistry, keys: list[PublicKey]) -> None:
    assert registry.admit("kitchen", keys[0], "asked by mail").partition == 0
    assert registry.admit("lab", keys[1]).partition == 1
    registry.revoke("kitchen", "laptop stolen")
    assert registry.admit("garage", keys[2]).partition == 2

    again = registry.admit("kitchen", keys[3])

    assert again.partition == 0
    assert again.admitted
    assert [(site.name, site.partition) for site in registry.sites()] == [("kitchen", 0), ("lab", 1), ("garage", 2)]
    assert registry.read().federation == "arms"


def test_the_list_is_parsed_again_only_when_it_has_changed(registry: SiteRegistry, keys: list[PublicKey]) -> None:
    """Who is admitted is asked for every message: to read all keys each time takes longer the more there are."""
    registry.admit("kitchen", keys[0])
    before = registry.read()
    assert registry.read() is before

    SiteRegistry(registry.path).revoke("kitchen", "laptop stolen")

    assert registry.read() is not before and not registry.site("kitchen").admitted
    registry.path.chmod(0o666)
    with pytest.raises(StageError, match="others on this machine may change it"):
        registry.read()


def test_a_revoked_site_says_when_and_why(registry: SiteRegistry, keys: list[PublicKey]) -> None:
    registry.admit("kitchen", keys[0])

    site = registry.revoke("kitchen", "laptop stolen")

    assert (site.state, site.why) == ("revoked", "laptop stolen")
    assert registry.site("kitchen") == site
    with pytest.raises(StageError, match=r"was revoked on .* already: laptop stolen"):
        registry.revoke("kitchen", "again")
    with pytest.raises(StageError, match="say why"):
        registry.revoke("kitchen", " ")


def test_a_key_is_one_sites_once(registry: SiteRegistry, keys: list[PublicKey]) -> None:
    registry.admit("kitchen", keys[0])
    registry.admit("lab", keys[1])

    with pytest.raises(StageError, match="is site kitchen's; every site needs a key of its own"):
        registry.admit("garage", keys[0])
    with pytest.raises(StageError, match="is site kitchen's"):
        registry.rotate("lab", keys[0])

    registry.revoke("kitchen", "laptop stolen")
    for attempt in (lambda: registry.admit("kitchen", keys[0]), lambda: registry.admit("garage", keys[0])):
        with pytest.raises(StageError, match=r"was site kitchen's and is not valid any more \(laptop stolen\)"):
            attempt()
    assert [site.name for site in registry.sites()] == ["kitchen", "lab"]


def test_a_rotated_key_is_retired(registry: SiteRegistry, keys: list[PublicKey]) -> None:
    registry.admit("kitchen", keys[0])
    registry.registered("kitchen", 7)

    site = registry.rotate("kitchen", keys[1])

    assert (site.partition, site.fingerprint, site.node_id) == (0, keys[1].fingerprint, None)
    assert [old.fingerprint for old in site.retired] == [keys[0].fingerprint]
    known = registry.read().by_fingerprint()
    assert known[keys[0].fingerprint] == (site, False)
    assert known[keys[1].fingerprint] == (site, True)
    with pytest.raises(StageError, match=r"not valid any more \(key replaced\)"):
        registry.admit("garage", keys[0])
    registry.revoke("kitchen", "gone")
    with pytest.raises(StageError, match="is revoked"):
        registry.rotate("kitchen", keys[2])


def test_nodes_belong_to_sites(registry: SiteRegistry, keys: list[PublicKey]) -> None:
    registry.admit("kitchen", keys[0])
    registry.admit("lab", keys[1])
    large = 2**64 - 3  # Flower's numbers have 64 bits

    registry.registered("kitchen", large)

    found = registry.of_node(large)
    assert found is not None
    assert found.name == "kitchen"
    assert registry.of_node(5) is None
    with pytest.raises(StageError, match="is site kitchen already"):
        registry.registered("lab", large)
    registry.revoke("kitchen", "gone")
    assert registry.of_node(large) is None


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", "a.b"])
def test_names_that_params_refuse_are_refused(registry: SiteRegistry, keys: list[PublicKey], name: str) -> None:
    with pytest.raises(StageError, match="may hold letters, digits, '-' and '_' only"):
        registry.admit(name, keys[0])
    assert registry.sites() == ()


def test_a_taken_name_says_how_to_go_on(registry: SiteRegistry, keys: list[PublicKey]) -> None:
    registry.admit("kitchen", keys[0])

    with pytest.raises(StageError, match=r"there is a site 'kitchen' already.*zk0 site rotate kitchen PUBKEY"):
        registry.admit("kitchen", keys[1])
    with pytest.raises(StageError, match="did you mean 'kitchen'"):
        registry.site("kitchn")


def test_a_list_others_may_change_is_refused(registry: SiteRegistry, keys: list[PublicKey]) -> None:
    registry.path.chmod(0o664)

    with pytest.raises(StageError, match="others on this machine may change it"):
        registry.admit("kitchen", keys[0])


def test_a_damaged_list_is_named(registry: SiteRegistry, keys: list[PublicKey], tmp_path: Path) -> None:
    registry.admit("kitchen", keys[0])
    registry.admit("lab", keys[1])
    content = json.loads(registry.path.read_text())

    def refused(match: str) -> None:
        registry.path.write_text(json.dumps(content))
        with pytest.raises(StageError, match=match):
            registry.read()

    content["sites"][1]["partition"] = 0
    refused("two sites have the same partition")
    content["sites"][1] |= {"partition": 1, "fingerprint": keys[2].fingerprint}
    refused("fingerprint of site lab is not its public key's")
    content["sites"][1]["state"] = "welcome"
    refused(r"sites\.json is no list of sites")
    with pytest.raises(StageError, match="is missing; `zk0 security init"):
        SiteRegistry(tmp_path / "nothing.json").read()
    with pytest.raises(StageError, match="is there already"):
        SiteRegistry.create(registry.path, "others")


def _admit(path: Path, number: int, key: PublicKey) -> None:
    SiteRegistry(path).admit(f"site-{number}", key)


def test_commands_side_by_side_lose_nothing(registry: SiteRegistry, keys: list[PublicKey]) -> None:
    context = multiprocessing.get_context("spawn")  # a process with threads is not to be forked
    processes = [context.Process(target=_admit, args=(registry.path, n, key)) for n, key in enumerate(keys)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0] * len(keys)
    assert sorted(site.name for site in registry.sites()) == [f"site-{number}" for number in range(len(keys))]
    assert [site.partition for site in registry.sites()] == list(range(len(keys)))
