"""A site's versions: which is taken, which is kept, which is dropped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zk0.errors import StageError
from zk0.federation.codecs import codec_named, decode_all, encode_with_error
from zk0.federation.state import SiteMemory, Version
from zk0.params import Codec


def version(number: float) -> Version:
    return Version({"w": torch.tensor([number])}, {"exp_avg/w": torch.tensor([-number])})


def held(memory: SiteMemory) -> list[str]:
    return sorted(path.name for path in memory.folder.iterdir())


def test_version_comes_back(tmp_path: Path) -> None:
    memory = SiteMemory.of(tmp_path, "run", 3)
    memory.save(7, version(1.5))

    found = memory.load(7)

    assert memory.folder == tmp_path / "state" / "run" / "sites" / "0003"
    assert found.residual["w"].tolist() == [1.5] and found.moments["exp_avg/w"].tolist() == [-1.5]


def test_nothing_asked_for_or_nothing_there_is_an_empty_version(tmp_path: Path) -> None:
    memory = SiteMemory(tmp_path)

    assert memory.load(0) == Version() and memory.load(4) == Version()


def test_empty_version_leaves_no_folder(tmp_path: Path) -> None:
    memory = SiteMemory(tmp_path / "site")
    memory.save(1, Version())

    assert not (tmp_path / "site").exists()


def test_round_tried_again_with_nothing_to_keep_leaves_nothing_of_before(tmp_path: Path) -> None:
    memory = SiteMemory(tmp_path)
    memory.save(2, version(1))
    memory.save(2, Version())

    assert memory.load(2) == Version()


def test_round_tried_again_replaces_its_version(tmp_path: Path) -> None:
    memory = SiteMemory(tmp_path)
    memory.save(2, version(1))
    memory.save(2, Version({"w": torch.tensor([2.0])}))

    assert memory.load(2).residual["w"].tolist() == [2.0] and memory.load(2).moments == {}


def test_versions_that_cannot_be_asked_for_again_are_dropped(tmp_path: Path) -> None:
    memory = SiteMemory(tmp_path)
    for number in (1, 2, 3):
        memory.save(number, version(number))

    memory.prune(2)

    assert held(memory) == ["round-0002", "round-0003"]


def test_damaged_version_is_named(tmp_path: Path) -> None:
    memory = SiteMemory(tmp_path)
    memory.save(2, version(1))
    file = tmp_path / "round-0002" / "residual.safetensors"
    file.write_bytes(file.read_bytes()[:-2])

    with pytest.raises(StageError, match=r"round-0002/residual\.safetensors is cut short .*\. Delete .*round-0002"):
        memory.load(2)


# -- no error is lost or counted twice -----------------------------------------------------------


class Site:
    """A site with updates of 100 numbers, and the sum of what a server got of them."""

    def __init__(self, folder: Path, codec: Codec) -> None:
        self.memory, self.codec = SiteMemory(folder), codec_named(codec)
        self.used, self.wanted, self.got = 0, torch.zeros(100), torch.zeros(100)

    def train(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What the site makes in a round, and what of it arrives; the same each time it is asked."""
        delta = torch.randn(100, generator=torch.Generator().manual_seed(number))
        before = self.memory.load(self.used)
        encoded, residual = encode_with_error(self.codec, {"w": delta.clone()}, before.residual)
        self.memory.save(number, Version(residual))
        return delta, decode_all(self.codec, encoded)["w"]

    def use(self, number: int) -> None:
        """A round in which the server averages the update."""
        delta, arrived = self.train(number)
        self.wanted, self.got, self.used = self.wanted + delta, self.got + arrived, number

    @property
    def missing(self) -> torch.Tensor:
        """What of all used updates the server lacks."""
        return self.wanted - self.got


@pytest.mark.parametrize("codec", ["bf16", "int8", "int4"])
def test_what_the_server_lacks_is_what_the_site_remembers(tmp_path: Path, codec: Codec) -> None:
    site = Site(tmp_path, codec)
    site.use(1)
    site.train(2)  # refused, or too late
    site.use(3)
    site.memory.prune(1)
    site.train(4)  # the server is killed and takes the round up again
    site.use(4)
    site.memory.prune(3)
    site.use(9)  # absent from 5 to 8

    assert site.missing.abs().max() > 1e-4  # it is lossy
    assert torch.allclose(site.missing, site.memory.load(9).residual["w"], atol=1e-5)


def test_round_taken_up_again_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    once, twice = Site(tmp_path / "once", "int4"), Site(tmp_path / "twice", "int4")
    for site in (once, twice):
        site.use(1)
        site.use(2)
    twice.train(3)
    twice.used = 1  # the server was killed before round 2 was saved
    twice.memory.prune(1)
    _, arrived = twice.train(2)
    twice.used = 2

    assert torch.equal(once.train(3)[1], twice.train(3)[1])
    assert not torch.equal(arrived, twice.train(3)[1])


def test_version_that_is_gone_begins_anew(tmp_path: Path) -> None:
    """A site with a new disk: its error is dropped, once, and nothing is counted twice."""
    site = Site(tmp_path, "int4")
    site.use(1)
    site.memory.prune(5)

    _, arrived = site.train(2)

    fresh = Site(tmp_path / "fresh", "int4")
    assert torch.equal(arrived, fresh.train(2)[1])
