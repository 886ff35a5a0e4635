"""A federated round, from top to bottom: plan, ask, check, fold, step, judge, save.

With w_t the global model after round t, S_t the sites that train, and L the held-out loss::

    plan    S_t, the proximal weight mu and the server's rate eta of the round          plan.py
    ask     each site k of S_t for delta_k = w_k - w_t, which it trains from w_t,       server.py
            and for n_k, the examples that it trained on; or 1, or times its loss
    check   that what it says is what was asked for, and within bounds                  answers.py
    fold    Delta_t = sum n_k delta_k / sum n_k, or a robust or private stand-in,       aggregation.py, robust.py
            one reply at a time: all together they may not fit in memory
    step    w_t+1 = w_t + eta Delta_t, or an adaptive step along Delta_t                server_optimizer.py
    judge   L(w_t+1), the mean of the judges' own                                       agreement.py
    save    what a killed run goes on from                                              state.py

The mean is McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
algorithm 1 (FedAvg); mu is Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020 (FedProx); the
step is Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 1 (FedOpt).

A round is a pure function of the state and the replies; only noise for privacy's sake is new each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median_low

from zk0.errors import StageError
from zk0.federation import protocol
from zk0.federation.aggregation import Aggregator, longest_update
from zk0.federation.agreement import agreed_loss
from zk0.federation.answers import Reply
from zk0.federation.broadcast import Model, next_model
from zk0.federation.history import in_brief
from zk0.federation.plan import RoundPlan, Rows, judges, plan_round, why_stopped
from zk0.federation.privacy.central import Remembered, public_part
from zk0.federation.server import FederationError, Server
from zk0.federation.state import RoundState, Saver, StateFolder
from zk0.federation.strategy import make_optimizer
from zk0.measuring.timing import resident_bytes
from zk0.params import Params
from zk0.policy.checkpoint import Stats
from zk0.policy.trainable import TensorMismatch, Tensors
from zk0.records.run import SiteRound, both_parts, round_row

After = Callable[[RoundState, float | None], None]


@dataclass(frozen=True)
class SiteUpdate:
    """What a round keeps of a site's training besides delta_k: its weight (n_k or 1, times its say), and its row."""

    site: str
    partition: int
    weight: float
    record: dict[str, float]


def run_round(server: Server, state: RoundState, stats: Stats, saver: Saver | None = None) -> RoundState:
    """One round, from w_t in ``state`` to the state with w_t+1; saving it is the caller's.

    Args:
        server: Speaks to the sites.
        state: After the round before.
        stats: The common normalisation.
        saver: Knows the last saved state, where a restart would begin; None leaves all of ``state`` as it is.

    Raises:
        FederationError: Too few sites answered well.
    """
    began, worked = time.perf_counter(), time.process_time()
    server.begin_round()
    federation, held = server.params.federation, Model(state.tensors, state.digest)
    plan = plan_round(server.params, state.rounds, list(server.sites))
    told, rate, mu = plan.told(federation, len(server.sites)), plan.server_rate, plan.proximal_mu
    server.journal.say("round-start", told, round=plan.round, server_learning_rate=rate, proximal_mu=mu)

    delta, updates, aggregate_s = train(server, state, stats, plan, saver)  # ask, check, fold

    stepped = time.perf_counter()
    if saver:
        saver.wait()  # once it is saved, nobody needs the old optimiser state's memory
    optimizer = make_optimizer(federation, rate)
    exact, moments = optimizer.step(state.optimizer, state.tensors, delta, reuse_state=saver is not None)
    del delta
    for name, missing in state.residual.items():
        exact[name].add_(missing)
    model, residual = next_model(held, exact, federation.downlink)
    del exact
    aggregate_s += time.perf_counter() - stepped

    loss, judged = judge(server, model, stats, plan.round, state.rounds)

    private, remembered = server.private_row(state, [u.record for u in updates])
    trained = {u.site: public_part(u.record) if remembered else u.record for u in updates}
    asked = {*plan.partitions, *judges(server.params, list(server.sites))}
    sites = {
        site: both_parts(trained.get(site, {}), judged.get(site, {}))
        for partition, site in server.sites.items()
        if partition in asked
    }
    figures = {
        "train_loss": sum(u.record["train_loss"] * u.weight for u in updates) / sum(u.weight for u in updates),
        "learning_rate": median_low(u.record["learning_rate"] for u in updates),  # of honest sites all are the same
        "server_learning_rate": rate,
        "proximal_mu": mu,
        "round_s": time.perf_counter() - began,
        "aggregate_s": aggregate_s,
        "cpu_s": time.process_time() - worked,
        "memory_bytes": resident_bytes(),
        **private,
    }
    row = round_row(plan.round, loss, model.digest, sites, server.left_out, server.bounded, **figures)
    return replace(
        state,
        round=plan.round,
        tensors=model.tensors,
        rounds=(*state.rounds[:-1], in_brief(state.rounds[-1]), row),
        residual=residual,
        optimizer=moments,
        used=state.used | {u.partition: plan.round for u in updates},
        privacy=remembered,
    )


def train(
    server: Server, state: RoundState, stats: Stats, plan: RoundPlan, saver: Saver | None = None
) -> tuple[Tensors, list[SiteUpdate], float]:
    """Ask the round's sites for their delta_k, check each as it comes, and fold it into Delta_t.

    Returns:
        Delta_t in float32, what is kept of each site's part, and the seconds spent folding.
    """
    params, number, central = server.params, plan.round, server.central()
    saved = (saver.used if saver else None) or {}
    updates, spent = list[SiteUpdate](), 0.0

    def own(partition: int) -> dict[str, float]:
        used, keep = state.used.get(partition, 0), saved.get(partition, 0)
        return {"used": used, "keep": keep, "proximal_mu": plan.proximal_mu}

    held = Model(state.tensors, state.digest)
    with server.aggregator(state) as aggregator:
        for reply in server.ask(protocol.TRAIN, number, held, stats, own, plan.partitions):
            began = time.perf_counter()
            try:
                update = _fold(aggregator, reply, params, plan.says.get(reply.site, 1.0))
                updates.append(update)
                told = "" if central else f", loss {update.record['train_loss']:.4f}"
                server.journal.say("train", f"{update.site} trained{told}", round=number, site=update.site)
            except (protocol.WireError, TensorMismatch) as error:
                server.leave_out(reply.site, number, f"its update is refused: {error}")
            spent += time.perf_counter() - began
            del reply  # or its update would stay in memory while the next site makes its own
        server.enough(len(updates), number, "trained", len(plan.partitions))
        began = time.perf_counter()
        if central:
            central.charge_training(number)
        try:
            mean = aggregator.finish()
        except StageError as error:  # such as too few updates for a robust strategy, though enough sites answered
            raise FederationError(f"round {number}: {error}. {server.way_on()}") from error
    spent += time.perf_counter() - began
    chosen = getattr(aggregator, "chosen", range(len(updates)))  # those who were not are told by name
    without = [update.site for place, update in enumerate(updates) if place not in chosen]
    told = f"averaged {len(updates) - len(without)} updates" + (f", without {', '.join(without)}" if without else "")
    server.journal.say("aggregate", told, round=number, seconds=spent)
    return mean, updates, spent


def _fold(aggregator: Aggregator, reply: Reply, params: Params, say: float) -> SiteUpdate:
    """Add n_k delta_k, times the say; a function of its own, so that delta_k is gone when the next one is made."""
    delta, count = reply.update(params)
    weight = count * say
    values = sum(tensor.numel() for tensor in delta.values())
    norm = aggregator.fold(delta, weight, longest_update(params, values, private="epsilon" in reply.values))
    record = reply.record(params.privacy) | {"update_norm": norm, "bytes_up": reply.bytes_up}
    return SiteUpdate(reply.site, reply.partition, weight, record)


def judge(
    server: Server, model: Model, stats: Stats, number: int, rows: Rows = ()
) -> tuple[float, dict[str, dict[str, float]]]:
    """Held-out loss L of a model in round ``number``, after those of ``rows``: its judges' mean, and each one's.

    What a site's loss counts as, by the frames of its manifest, is :func:`.agreement.agreed_loss`'s to say. Under
    privacy the sites weigh the same; under central privacy the mean is noised and charged for, and no site's own told.
    """
    asked = judges(server.params, list(server.sites))
    replies = server.ask(protocol.EVALUATE, number, model, stats, partitions=asked)
    sites = {reply.site: reply.record(server.params.privacy) for reply in replies}
    server.enough(len(sites), number, "evaluated", len(asked))
    losses = {site: record["held_out_loss"] for site, record in sites.items()}
    if central := server.central():
        mean = central.held_out(number, list(losses.values()))
        sites = {site: public_part(record) for site, record in sites.items()}
    elif server.params.privacy.mode == "site":  # so noisy that they tell nothing of each other
        mean = sum(losses.values()) / len(losses)
    else:
        frames = {manifest.site: manifest.held_out_frames for manifest in server.manifests.values()}
        agreed = agreed_loss(losses, frames, rows)
        mean = agreed.mean
        for site, why in agreed.bounded.items():
            server.bound(site, number, why)
    server.journal.say("evaluate", f"held-out loss {mean:.4f}", round=number, held_out_loss=mean)
    return mean, sites


def first_state(server: Server, tensors: Tensors, at_sites: bool = True) -> RoundState:
    """Round 0: common normalisation, and the starting model's held-out loss.

    Whoever was left out when the sites met is left out of it.

    Args:
        server: Speaks to the sites.
        tensors: The starting model's.
        at_sites: They are the starting policy's, which sites have, so that they are not sent.
    """
    moments = server.merged_moments()
    model = Model.of(tensors)
    if at_sites:
        server.held = dict.fromkeys(server.sites, model.digest)
    loss, judged = judge(server, model, moments.normalisation(), 0)
    sites = {site: SiteRound.model_validate(told) for site, told in judged.items()}
    spent, remembered = dict[str, float](), Remembered()
    if central := server.central():
        spent, remembered = central.spent(), central.remembered(server.params.privacy.clip_norm)
    row = round_row(0, loss, model.digest, sites, server.left_out, server.bounded, **spent)
    stats = {name: tensor.tolist() for name, tensor in moments.to_tensors().items()}
    return RoundState(0, tensors, (row,), stats, privacy=remembered)


def run_rounds(server: Server, states: StateFolder, start: Tensors, after: After, at_sites: bool = True) -> RoundState:
    """Run all rounds that are still to do, saving each while the next one runs; the state after the last.

    Args:
        server: Speaks to the sites.
        states: Where rounds are kept; continued if it holds any.
        start: Trainable tensors to begin with.
        after: Called, in the saving thread, with each state once it is saved, and the seconds taken; None for a state
            that was already there.
        at_sites: Whether ``start`` is the starting policy, see :func:`first_state`.

    Raises:
        FederationError: A round could not be completed; it is an event, too.
    """

    def saved(state: RoundState, seconds: float) -> None:
        if state.round:
            server.journal.say("save", f"round {state.round} saved", round=state.round, seconds=seconds)
        after(state, seconds)

    params, state = server.params, states.load_last()
    with Saver(states, saved) as saver:
        try:
            central = server.central()
            if state is None:
                state = first_state(server, start, at_sites)
                del start  # the state's alone from here on: once round 1 is over, it is of no more use
                saver.save(state)
            else:
                server.journal.say("resume", f"continuing after round {state.round}", round=state.round)
                saver.used = state.used
                if central:
                    central.resume(state.privacy)
                after(state, None)
            stats = state.moments().normalisation()
            while state.round < params.federation.rounds and not why_stopped(params, state.rounds, central):
                state = run_round(server, state, stats, saver)
                saver.save(state)
        except FederationError as error:
            server.journal.say("failed", str(error), round=state.round + 1 if state else 0)
            raise
    if why := why_stopped(params, state.rounds, central):
        server.journal.say("stop", f"stopped after round {state.round}: {why}", round=state.round)
    return state
