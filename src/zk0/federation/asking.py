"""What a round asks of its sites: to train, and to judge the model that came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from zk0.federation import protocol, wire
from zk0.federation.aggregation import Aggregator, longest_update
from zk0.federation.broadcast import Model
from zk0.federation.losses import agreed_loss, sound_loss
from zk0.federation.plan import RoundPlan, plan_round
from zk0.federation.privacy.central import public_part
from zk0.federation.reply_order import Reply
from zk0.federation.schedules import Rows
from zk0.federation.server import Server
from zk0.federation.state import RoundState, Saver
from zk0.federation.strategy import make_aggregator
from zk0.params import Params
from zk0.policy.checkpoint import Stats
from zk0.policy.trainable import TensorMismatch, Tensors


@dataclass(frozen=True)
class SiteUpdate:
    """What a round keeps of a training reply besides the update itself."""

    site: str
    partition: int
    weight: float
    record: dict[str, Any]


def train_round(
    server: Server, state: RoundState, stats: Stats, saver: Saver | None = None, plan: RoundPlan | None = None
) -> tuple[Tensors, list[SiteUpdate], float]:
    """Have the round's sites train and average what they send, one reply at a time.

    Args:
        server: Speaks to the sites.
        state: After the round before.
        stats: The common normalisation.
        saver: Knows the last state that is saved, where a restart would begin.
        plan: The round's; None makes it.

    Returns:
        The mean update, the sites' records, and the seconds spent averaging.
    """
    plan = plan or plan_round(server.params, state.rows, list(server.sites))
    number, journal = plan.round, server.journal
    updates: list[SiteUpdate] = []
    spent = 0.0

    def own(partition: int) -> dict[str, Any]:
        back = (saver.used if saver else None) or {}
        used, keep = state.used.get(partition, 0), back.get(partition, 0)
        return {"used": used, "keep": keep, "proximal_mu": plan.proximal_mu}

    central = server.central()
    with _aggregator(server, state) as aggregator:
        model = Model(state.tensors, state.digest)
        for reply in server.ask_with_model(protocol.TRAIN, number, model, stats, own, plan.partitions):
            began = time.perf_counter()
            try:
                update = _fold(aggregator, reply, server.params)
                updates.append(update)
                told = "" if central else f", loss {update.record['train_loss']:.4f}"
                journal.say("train", f"{update.site} trained{told}", round=number, site=update.site)
            except (wire.WireError, TensorMismatch) as error:
                server.leave_out(reply.site, number, f"its update is refused: {error}")
            spent += time.perf_counter() - began
            del reply  # or its update would stay in memory while the next site makes its own
        server.enough(len(updates), number, "trained", len(plan.partitions))
        began = time.perf_counter()
        if central:
            central.charge_training(number)
        mean = aggregator.finish()
    spent += time.perf_counter() - began
    journal.say("aggregate", f"averaged {len(updates)} updates", round=number, seconds=spent)
    return mean, updates, spent


def _aggregator(server: Server, state: RoundState) -> Aggregator:
    """For the round after a state: the strategy's, or the private mean."""
    if central := server.central():
        return central.aggregator(state.tensors, state.privacy)
    return make_aggregator(server.params.federation, state.tensors, server.workspace)


def _fold(aggregator: Aggregator, reply: Reply, params: Params) -> SiteUpdate:
    """Decode a site's update and add it to the average."""
    values = reply.values
    asked = params.training.local_steps * params.training.batch
    if values["examples"] > asked:
        raise ValueError(f"examples is {values['examples']}, but {asked} were asked for: local_steps times batch")
    weight = float(values["examples"]) if params.federation.weighting == "examples" else 1.0
    delta = wire.unpack(reply.content, protocol.DELTA, params.federation.uplink)
    aggregator.longest = longest_update(params, sum(t.numel() for t in delta.values()), "epsilon" in values)
    norm = aggregator.fold(delta, weight)
    told = ("examples", "train_loss", "train_s", "learning_rate", "epsilon")
    record = {k: values[k] for k in told if k in values}
    record["train_loss"] = sound_loss(record["train_loss"], params.privacy)
    record |= {"update_norm": norm, "bytes_up": reply.bytes_up, "bytes_down": reply.bytes_down}
    return SiteUpdate(reply.site, reply.partition, weight, record)


def evaluate_round(
    server: Server, model: Model, stats: Stats, number: int, rows: Rows = ()
) -> tuple[float, dict[str, dict[str, Any]]]:
    """Held-out loss of a model: the mean over sites weighted by the frames of their manifests, and each site's.

    What a site's loss counts as is :func:`zk0.federation.losses.agreed_loss`'s to say. Under privacy the sites weigh
    the same; under central privacy the mean is noised and charged for, and no site's own is told.

    Args:
        server: Speaks to the sites.
        model: To be judged.
        stats: The common normalisation.
        number: The round.
        rows: Of the rounds before.
    """
    sites: dict[str, dict[str, Any]] = {}
    for reply in server.ask_with_model(protocol.EVALUATE, number, model, stats):
        sites[reply.site] = {
            "held_out_loss": sound_loss(float(reply.values["held_out_loss"]), server.params.privacy),
            "evaluate_s": reply.values["evaluate_s"],
            "bytes_down": reply.bytes_down,
            **{name: reply.values[name] for name in ("epsilon",) if name in reply.values},
        }
    server.enough(len(sites), number, "evaluated")
    losses = {name: float(site["held_out_loss"]) for name, site in sites.items()}
    if central := server.central():
        mean = central.held_out(number, list(losses.values()))
        sites = {name: public_part(site) for name, site in sites.items()}
    elif server.params.privacy.mode == "site":  # so noisy that they tell nothing of each other
        mean = sum(losses.values()) / len(losses)
    else:
        frames = {manifest["site"]: manifest["held_out_frames"] for manifest in server.manifests.values()}
        agreed = agreed_loss(losses, frames, rows)
        mean = agreed.mean
        for name, why in agreed.bounded.items():
            server.bound(name, number, why)
    server.journal.say("evaluate", f"held-out loss {mean:.4f}", round=number, held_out_loss=mean)
    return mean, sites


def merged(trained: dict[str, Any], evaluated: dict[str, Any]) -> dict[str, Any]:
    """A site's record of a round; what it was sent to train and to evaluate counts together.

    Either part may be empty: the site was not drawn, or was left out.
    """
    down = trained.get("bytes_down", 0) + evaluated.get("bytes_down", 0)
    return {"bytes_up": 0} | trained | evaluated | {"bytes_down": down}
