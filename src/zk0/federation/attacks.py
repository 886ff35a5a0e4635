"""Sites that attack a federation, for studies of how well it withstands them.

Updates that are reversed or blown up (model poisoning; Blanchard et al., "Machine Learning with
Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017) and training on wrong labels (data
poisoning; Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning",
USENIX Security 2020). The attacker speaks the protocol well: names, shapes, codec and digests are right,
and the loss it tells is believable, so only what it sends can give it away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from zk0.data.frames import Frames
from zk0.federation import protocol, wire
from zk0.federation.client_app import app as honest
from zk0.federation.client_app import training_by
from zk0.federation.site import site_at
from zk0.params import Codec
from zk0.seeding import numpy_rng

AttackKind = Literal["sign-flip", "scale", "shuffled-labels"]

_Answer = Callable[[Message, Context], Message]


@dataclass(frozen=True)
class Attack:
    """What a malicious site does.

    Attributes:
        kind: ``sign-flip`` sends the update times -factor, ``scale`` the update times factor,
            ``shuffled-labels`` trains on actions that belong to other frames.
        factor: Of the first two; above 0.
        seed: Of the third: decides which frame gets whose action.

    Raises:
        ValueError: The kind is unknown, or the factor not positive and finite.
    """

    kind: AttackKind
    factor: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in (kinds := get_args(AttackKind)):
            raise ValueError(f"unknown attack '{self.kind}'; known are {', '.join(kinds)}")
        if not 0 < self.factor < math.inf:
            raise ValueError(f"an attack's factor must be above 0 and finite, got {self.factor}")


Liar = tuple[int, Attack]  # the partition of a malicious site, and what it does


def poisoned(app: ClientApp, partition: int, attack: Attack) -> ClientApp:
    """A ClientApp whose site of one partition is malicious; all others, and all it does besides training, are honest.

    Args:
        app: The honest one.
        partition: Whose.
        attack: What it does instead.
    """
    attacks: dict[AttackKind, _Answer] = {
        "sign-flip": lambda message, context: _scaled(app, message, context, -attack.factor),
        "scale": lambda message, context: _scaled(app, message, context, attack.factor),
        "shuffled-labels": lambda message, context: _trained_on_noise(app, message, context, attack.seed),
    }

    def train(message: Message, context: Context) -> Message:
        malicious = context.node_config["partition-id"] == partition
        return attacks[attack.kind](message, context) if malicious else app(message, context)

    return training_by(train, app)


def app_with(liar: Liar | None) -> ClientApp:
    """The sites' ClientApp, with a liar among them where there is one."""
    return poisoned(honest, *liar) if liar else honest


def shuffled_labels(frames: Frames, seed: int, partition: int) -> Frames:
    """The same frames with their actions dealt out anew; mean and spread of the actions stay what they were."""
    order = numpy_rng(seed, "shuffled-labels", partition).permutation(len(frames))
    return replace(frames, actions=frames.actions[order])


def _scaled(app: ClientApp, message: Message, context: Context, factor: float) -> Message:
    """The honest reply with its update multiplied, encoded and digested anew."""
    task, _ = protocol.read(message.content, protocol.SiteTask)
    reply = app(message, context)
    if protocol.DELTA in reply.content:  # not where the site asks for the model first
        codec: Codec = task.uplink
        update = wire.unpack(reply.content, protocol.DELTA, codec)
        scaled = {name: tensor * factor for name, tensor in update.items()}
        wire.put(reply.content, protocol.DELTA, wire.encode(scaled, codec))
    return reply


def _trained_on_noise(app: ClientApp, message: Message, context: Context, seed: int) -> Message:
    """The reply of an honest site that has these wrong labels."""
    site = site_at(context.node_config)
    with site.training_on(shuffled_labels(site.train_frames, seed, site.manifest.partition)):
        return app(message, context)
