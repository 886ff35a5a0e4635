"""A night may begin short of the champion, drawn back to the policy that it was trained from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from zk0.federation.broadcast import Model
from zk0.federation.run import config_digest
from zk0.federation.server import FederationError
from zk0.federation.site import forget
from zk0.federation.start import drawn_back, locked_base, locked_shrink
from zk0.files import write_json
from zk0.params import Params, with_changes
from zk0.pipeline import federate, prepare
from zk0.policy.checkpoint import load_checkpoint, save_checkpoint
from zk0.policy.embedded import NANO, write_vlm
from zk0.policy.start import CAMERAS, build_nano, load_start
from zk0.policy.trainable import trainable_tensors
from zk0.records.files import events_so_far, read, read_rounds
from zk0.records.paths import EVENTS
from zk0.records.run import Run
from zk0.sources_lock import BASE_VARIABLE, resolve_sources


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, recorded: Path, small_params: Params) -> tuple[Path, Params, str]:
    """A project whose champion was trained from ``random:nano``."""
    root = tmp_path_factory.mktemp("start")
    shutil.copytree(recorded, root / "cubes")
    changes = {"data.sites": {"cubes": "local:cubes"}, "federation.rounds": 1, "policy.base": "random:nano"}
    params = with_changes(small_params, changes)
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv(BASE_VARIABLE, raising=False)
        write_json(root / "sources.lock.json", resolve_sources(with_changes(params, {"policy.warm_start": 0.5}), root))
    assert locked_shrink(root) is None  # there is nothing between params' own base and itself
    prepare.run(root, params)
    run(root, params)
    shutil.copytree(root / "checkpoints" / "last", root / "champion")
    return root, params, "champion"


def run(root: Path, params: Params) -> Run:
    forget()
    federate.run(root, params)
    return read(root, Run)


def test_half_way(night: tuple[Path, Params, str]) -> None:
    root, params, champion = night
    half = with_changes(params, {"policy.warm_start": 0.5})
    write_json(root / "sources.lock.json", resolve_sources(half, root, champion))

    found = run(root, half)

    base = trainable_tensors(load_start(root, "random:nano", "cpu").policy)
    best = trainable_tensors(load_checkpoint(root / champion).policy)
    assert any(not torch.equal(base[name], best[name]) for name in base)
    shrink = locked_shrink(root)
    assert shrink is not None
    start = drawn_back(root, half, best, shrink)
    for name, tensor in start.items():
        torch.testing.assert_close(tensor, (base[name] + best[name]) / 2)
    first = read_rounds(root)[0]
    assert first.digest == Model.of(start).digest
    assert first.bytes_down > sum(t.nbytes for t in base.values())  # sites have the champion, and not this
    assert found.base.digest == locked_base(root)[1]  # what the night is judged against
    (told,) = [event.message for event in events_so_far(root / EVENTS) if event.event == "start"]
    assert told == f"begins at 50% of the way from random:nano to {champion}"


def test_what_decides_it_is_in_the_digest(night: tuple[Path, Params, str]) -> None:
    root, params, champion = night
    digests = []
    for kept in (1.0, 0.5, 0.25):
        write_json(
            root / "sources.lock.json",
            resolve_sources(with_changes(params, {"policy.warm_start": kept}), root, champion),
        )
        digests.append(config_digest(params, locked_base(root)[1], [], locked_shrink(root)))

    assert len(set(digests)) == 3
    assert digests[0] == config_digest(params, locked_base(root)[1], [])


def test_only_towards_what_it_was_trained_from(night: tuple[Path, Params, str]) -> None:
    root, params, champion = night
    write_vlm(root / "vlm", NANO)
    loaded = load_start(root, "random:nano", "cpu")
    whole = build_nano(root / "vlm", CAMERAS, seed=1, frozen_backbone=False)
    save_checkpoint(replace(loaded, policy=whole), root / "whole")
    other = with_changes(params, {"policy.base": "whole", "policy.warm_start": 0.5})
    write_json(root / "sources.lock.json", resolve_sources(other, root, champion))
    with pytest.raises(FederationError, match=r"is no further training of policy\.base whole: .*vlm"):
        run(root, other)

    gone = with_changes(params, {"policy.base": "nowhere", "policy.warm_start": 0.5})
    with pytest.raises(ValueError, match=r"policy\.warm_start 0\.5 draws it back to policy\.base, but there is no"):
        resolve_sources(gone, root, champion)
