"""Rounds: train, average, take the server's step, evaluate, save, go on.

A round is a pure function of the state and the replies (:func:`next_state`); but where noise is added for privacy's
sake, it is new each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median_low
from typing import Any

import numpy as np

from zk0.federation import protocol, wire
from zk0.federation.aggregation import Aggregator, longest_update
from zk0.federation.agreement import agreed_loss, sound_loss
from zk0.federation.answers import Reply
from zk0.federation.broadcast import Model, next_model
from zk0.federation.plan import RoundPlan, Rows, plan_round, stop_reason
from zk0.federation.privacy.accountant import affordable_rounds
from zk0.federation.privacy.central import public_part
from zk0.federation.server import FederationError, Server
from zk0.federation.state import RoundState, Saver, StateFolder
from zk0.federation.statistics import Moments
from zk0.federation.strategy import make_aggregator, make_optimizer
from zk0.params import Params
from zk0.policy.checkpoint import Stats
from zk0.policy.trainable import TensorMismatch, Tensors

After = Callable[[RoundState, float | None], None]


def run_round(server: Server, state: RoundState, stats: Stats, saver: Saver | None = None) -> RoundState:
    """One round: train, average, take the server's step, evaluate."""
    began = time.perf_counter()
    server.begin_round()
    plan = plan_round(server.params, state.rows, list(server.sites))
    number = plan.round
    server.journal.say(
        "round-start", plan.told(server.params.federation, len(server.sites)), round=number, **plan.record()
    )
    mean, updates, aggregate_s = train_round(server, state, stats, saver, plan)
    stepped = time.perf_counter()
    if saver:
        saver.wait()  # once it is saved, nobody needs the old optimiser state's memory
    optimizer = make_optimizer(server.params.federation, plan.server_rate)
    exact, moments = optimizer.step(state.optimizer, state.tensors, mean, reuse_state=saver is not None)
    del mean
    for name, missing in state.residual.items():
        exact[name].add_(missing)
    model, residual = next_model(Model(state.tensors, state.digest), exact, server.params.federation.downlink)
    del exact
    aggregate_s += time.perf_counter() - stepped
    loss, evaluated = evaluate_round(server, model, stats, number, state.rows)
    weight = sum(update.weight for update in updates)
    trained = {update.site: update.record for update in updates}
    private, more = _private(server, state, updates)
    if more:
        trained = {site: public_part(record) for site, record in trained.items()}
    sites = {name: merged(trained.get(name, {}), evaluated.get(name, {})) for name in server.sites.values()}
    row = {
        "round": number,
        "train_loss": sum(u.record["train_loss"] * u.weight for u in updates) / weight,
        "held_out_loss": loss,
        "learning_rate": median_low(u.record["learning_rate"] for u in updates),  # of honest sites all are the same
        **plan.record(),
        "bytes_up": sum(site["bytes_up"] for site in sites.values()),
        "bytes_down": sum(site["bytes_down"] for site in sites.values()),
        "round_s": time.perf_counter() - began,
        "aggregate_s": aggregate_s,
        "digest": model.digest,
        "left_out": dict(server.left_out),
        "bounded": dict(server.bounded),
        "sites": sites,
        **private,
    }
    after = replace(
        state,
        residual=residual,
        optimizer=moments,
        used=state.used | {u.partition: number for u in updates},
        privacy=more,
    )
    return next_state(after, model.tensors, row)


def _private(server: Server, state: RoundState, updates: Sequence[SiteUpdate]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What privacy adds to a round's row, once all of the round is charged for, and what the state is to remember."""
    if central := server.central():
        row, clip = central.trained(state.privacy, [update.record for update in updates])
        return row | central.spent(), central.remembered(clip)
    spent = [update.record["epsilon"] for update in updates if "epsilon" in update.record]
    return ({"epsilon": max(spent), "delta": server.params.privacy.delta} if spent else {}), {}


def next_state(state: RoundState, tensors: Tensors, row: dict[str, Any]) -> RoundState:
    """The state after a round: new tensors, one more row."""
    return replace(state, round=state.round + 1, tensors=tensors, rows=(*state.rows, row))


def first_state(server: Server, tensors: Tensors) -> RoundState:
    """Round 0: common normalisation, and the starting model's held-out loss.

    The sites have the starting policy, so it is not sent.
    """
    server.begin_round()
    moments = server.merged_moments()
    model = Model.of(tensors)
    server.held = dict.fromkeys(server.sites, model.digest)
    loss, evaluated = evaluate_round(server, model, moments.normalisation(), 0)
    row = {
        "round": 0,
        "train_loss": None,
        "held_out_loss": loss,
        "learning_rate": None,
        "server_learning_rate": None,
        "proximal_mu": None,
        "bytes_up": 0,
        "bytes_down": sum(site["bytes_down"] for site in evaluated.values()),
        "round_s": None,
        "aggregate_s": None,
        "digest": model.digest,
        "left_out": dict(server.left_out),
        "bounded": dict(server.bounded),
        "sites": evaluated,
    }
    stats = {name: tensor.tolist() for name, tensor in moments.to_tensors().items()}
    if central := server.central():
        return RoundState(
            0, tensors, (row | central.spent(),), stats, privacy=central.remembered(server.params.privacy.clip_norm)
        )
    return RoundState(0, tensors, (row,), stats)


def moments_in(state: RoundState) -> Moments:
    """The merged moments a state remembers."""
    return Moments(**{name: np.asarray(value, dtype=np.float64) for name, value in state.stats.items()})


def run_rounds(server: Server, states: StateFolder, start: Tensors, after: After) -> RoundState:
    """Run all rounds that are still to do, saving each while the next one runs.

    Args:
        server: Speaks to the sites.
        states: Where rounds are kept; continued if it holds any.
        start: The starting policy's trainable tensors.
        after: Called with every new state once it is saved, from the saving thread, and the seconds that saving
            took; None for a state that was already there.

    Returns:
        The state after the last round.

    Raises:
        FederationError: A round could not be completed; it is an event, too.
    """

    def saved(state: RoundState, seconds: float) -> None:
        if state.round:
            server.journal.say("save", f"round {state.round} saved", round=state.round, seconds=seconds)
        after(state, seconds)

    state = states.load_last()
    with Saver(states, saved) as saver:
        if state is None:
            with _told_if_failed(server, 0):
                state = first_state(server, start)
            del start  # the state's alone from here on: once round 1 is over, it is of no more use
            saver.save(state)
        else:
            server.journal.say("resume", f"continuing after round {state.round}", round=state.round)
            saver.used = state.used
            if central := server.central():
                central.resume(state.privacy)
            after(state, None)
        stats = moments_in(state).normalisation()
        while state.round < server.params.federation.rounds and not why_stopped(server, state):
            with _told_if_failed(server, state.round + 1):
                state = run_round(server, state, stats, saver)
            saver.save(state)
    if why := why_stopped(server, state):
        server.journal.say("stop", f"stopped after round {state.round}: {why}", round=state.round)
    return state


@contextmanager
def _told_if_failed(server: Server, number: int) -> Iterator[None]:
    """Let whoever watches the run know that a round could not be completed."""
    try:
        yield
    except FederationError as error:
        server.journal.say("failed", str(error), round=number)
        raise


def why_stopped(server: Server, state: RoundState) -> str | None:
    """Why a run ends after a state though rounds are left: no progress, or no budget; None where it does not."""
    params = server.params
    if state.round >= params.federation.rounds:
        return None
    if why := stop_reason(params.federation, state.rows):
        return why
    if central := server.central():
        return central.stops(state.round + 1)
    if params.privacy.mode == "site" and (most := affordable_rounds(params.privacy, state.round + 1)) <= state.round:
        return f"privacy.target_epsilon {params.privacy.target_epsilon:g} affords {most} rounds"
    return None


def rows_with_best(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mark the rounds that were the best so far."""
    marked, best = [], float("inf")
    for row in rows:
        is_best = row["round"] > 0 and row["held_out_loss"] < best
        best = row["held_out_loss"] if is_best else best
        marked.append({**row, "is_best": is_best})
    return marked


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
            except (protocol.WireError, TensorMismatch) as error:
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

    What a site's loss counts as is :func:`zk0.federation.agreement.agreed_loss`'s to say. Under privacy the sites weigh
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
