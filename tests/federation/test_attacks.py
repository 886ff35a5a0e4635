"""Malicious sites, over real messages: what they send is well formed and not what they learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federated_sites import LIMIT, MakeServer, averaged, train_round

from zk0.data.frames import Frames
from zk0.federation import protocol, wire
from zk0.federation.answers import Reply
from zk0.federation.attacks import Attack, poisoned, shuffled_labels
from zk0.federation.broadcast import Model
from zk0.federation.client_app import app as client_app
from zk0.federation.server import Server
from zk0.federation.site import forget, open_site
from zk0.federation.state import RoundState
from zk0.federation.statistics import Moments
from zk0.policy.checkpoint import Stats
from zk0.policy.trainable import Tensors, digest_tensors, update_norm

Updates = dict[str, tuple[Tensors, float]]


def times(update: Tensors, factor: float) -> Tensors:
    return {name: tensor * factor for name, tensor in update.items()}


def trained(server: Server, state: RoundState, stats: Stats) -> dict[str, Reply]:
    """The sites' training replies of round 1."""
    return {r.site: r for r in server.ask(protocol.TRAIN, 1, Model.of(state.tensors), stats)}


@pytest.mark.parametrize(
    ("attack", "factor"), [(Attack("sign-flip", 3.0), -3.0), (Attack("scale", 8.0), 8.0), (Attack("scale"), 10.0)]
)
def test_update_is_multiplied_and_accepted(
    make_server: MakeServer, state: RoundState, stats: Stats, updates: Updates, attack: Attack, factor: float
) -> None:
    server = make_server(poisoned(client_app, 1, attack))

    tensors, records, _ = train_round(server, state, stats)

    honest, (update, weight) = updates["cubes-0"], updates["cubes-1"]
    assert digest_tensors(tensors) == averaged(state.tensors, honest, (times(update, factor), weight))
    assert server.left_out == {} and [r.site for r in records] == ["cubes-0", "cubes-1"]


@pytest.mark.parametrize("uplink", ["bf16", "int8", "int4"])
def test_update_is_encoded_as_asked_for(make_server: MakeServer, state: RoundState, stats: Stats, uplink: Any) -> None:
    honest = trained(make_server(uplink=uplink), state, stats)["cubes-1"]
    lied = trained(make_server(poisoned(client_app, 1, Attack("sign-flip", 2.0)), uplink=uplink), state, stats)

    update = wire.unpack(honest.content, protocol.DELTA, uplink)
    found = wire.unpack(lied["cubes-1"].content, protocol.DELTA, uplink)
    for name, tensor in found.items():  # a power of two: encoding what was decoded loses nothing more
        torch.testing.assert_close(tensor, update[name] * -2.0, rtol=2e-2, atol=1e-7)
    assert lied["cubes-1"].bytes_up == honest.bytes_up


def test_attacker_that_lacks_the_model_gets_it_first(
    make_server: MakeServer, state: RoundState, stats: Stats, updates: Updates
) -> None:
    server = make_server(poisoned(client_app, 1, Attack("scale", 2.0)))
    moved = {name: tensor + 0.01 for name, tensor in state.tensors.items()}
    server.held = dict.fromkeys(server.sites, Model.of(moved).digest)
    forget()

    replies = {r.site: r for r in server.ask(protocol.TRAIN, 1, Model.of(moved), stats)}

    assert server.left_out == {} and protocol.LACKS not in replies["cubes-1"].values
    norms = {name: update_norm(wire.unpack(r.content, protocol.DELTA)) for name, r in replies.items()}
    assert norms["cubes-1"] > 1.5 * norms["cubes-0"]


def test_wrong_labels_are_the_same_actions_on_other_frames(frames: Frames) -> None:
    wrong = shuffled_labels(frames, seed=1, partition=0)

    assert not np.array_equal(wrong.actions, frames.actions)
    assert sorted(map(tuple, wrong.actions)) == sorted(map(tuple, frames.actions))
    assert wrong.states is frames.states and wrong.images is frames.images
    assert np.array_equal(wrong.actions, shuffled_labels(frames, 1, 0).actions)
    for seed, partition in ((2, 0), (1, 1)):
        assert not np.array_equal(wrong.actions, shuffled_labels(frames, seed, partition).actions)


def test_site_with_wrong_labels_learns_something_else_and_tells_the_same_statistics(
    make_server: MakeServer, prepared: Path, state: RoundState, stats: Stats, updates: Updates, moments: Moments
) -> None:
    server = make_server(poisoned(client_app, 1, Attack("shuffled-labels", seed=4)))
    own = open_site(prepared, 1, LIMIT).train_frames

    replies = trained(server, state, stats)
    sent = {site: wire.unpack(reply.content, protocol.DELTA) for site, reply in replies.items()}

    assert digest_tensors(sent["cubes-0"]) == digest_tensors(updates["cubes-0"][0])
    assert digest_tensors(sent["cubes-1"]) != digest_tensors(updates["cubes-1"][0])
    again = trained(make_server(poisoned(client_app, 1, Attack("shuffled-labels", seed=4))), state, stats)["cubes-1"]
    assert digest_tensors(wire.unpack(again.content, protocol.DELTA)) == digest_tensors(sent["cubes-1"])
    site = open_site(prepared, 1, LIMIT)
    assert site.train_frames is own
    for name, tensor in moments.to_tensors().items():
        assert torch.equal(server.merged_moments().to_tensors()[name], tensor)


def test_wrong_labels_are_put_back_when_training_fails(prepared: Path, frames: Frames) -> None:
    site = open_site(prepared, 0, LIMIT)
    own = site.train_frames

    with pytest.raises(OSError), site.training_on(shuffled_labels(own, 1, 0)):
        assert site.train_frames is not own
        raise OSError

    assert site.train_frames is own


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "sign-flop"}, "unknown attack 'sign-flop'; known are sign-flip, scale, shuffled-labels"),
        ({"kind": "scale", "factor": 0.0}, "must be above 0 and finite, got 0.0"),
        ({"kind": "scale", "factor": float("inf")}, "must be above 0 and finite, got inf"),
        ({"kind": "sign-flip", "factor": -1.0}, "must be above 0 and finite, got -1.0"),
    ],
)
def test_attack_that_makes_no_sense_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Attack(**settings)
