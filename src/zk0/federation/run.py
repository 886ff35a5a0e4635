"""A whole federated run on any engine: set up, rounds, and the files it leaves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from zk0.data.manifest import Manifest
from zk0.digests import counted, digest_folder, key_of
from zk0.federation.discovery import Meet, check_alike, check_cameras, meet
from zk0.federation.home import local_names
from zk0.federation.plan import sites_drawn, why_stopped
from zk0.federation.privacy.accountant import affordable_rounds, planned_epsilon
from zk0.federation.privacy.central import CentralPrivacy
from zk0.federation.rounds import After, run_rounds
from zk0.federation.server import FederationError, Server
from zk0.federation.site import Warm
from zk0.federation.start import drawn_back, warm_start
from zk0.federation.state import RoundState, StateFolder
from zk0.federation.statistics import public_moments
from zk0.federation.strategy import check_enough, cost
from zk0.files import read_mapping, write_json, write_text
from zk0.machine import machine
from zk0.machine.packages import versions
from zk0.machine.repository import revision
from zk0.params import Params
from zk0.policy.checkpoint import LoadedPolicy, save_checkpoint
from zk0.records.base import Checkpoint, Origin
from zk0.records.files import append_lines, events_so_far, parse, write, write_lines
from zk0.records.journal import Journal, Listener
from zk0.records.paths import CHECKPOINTS, EVENTS, RESULTS, ROUNDS, RUN, STATES
from zk0.records.run import CURVES, Checkpoints, Event, Git, Privacy, Run, curves, rows_saved
from zk0.sources import Shrink

_CURVES = RESULTS / "curves.csv"


def config_digest(params: Params, base_digest: str, manifests: Sequence[Manifest], shrink: Shrink | None = None) -> str:
    """16 hex digits that change when anything that decides the global model changes."""
    content = {
        "seed": params.seed,
        "threads": params.threads,
        "policy": counted(params.policy, {"base", "warm_start"}),
        "base": base_digest,
        "shrink": [shrink["to"]["digest"], shrink["kept"]] if shrink else {},
        "features": counted(params.features, {"ahead"}),
        "training": counted(params.training),
        "federation": counted(params.federation, {"timeout_s", "min_replies"}),
        "evaluation": {"loss_draws": params.evaluation.loss_draws},
        "data": [manifest.digest for manifest in manifests],
    }
    if params.privacy.mode != "off":  # a larger budget goes on with the same run, and with what it spent
        content["privacy"] = counted(params.privacy, {"target_epsilon", "delta"})
    return key_of(content)


def run_federation(
    grid: Grid,
    root: Path,
    params: Params,
    base: tuple[str, str],
    listener: Listener = lambda _: None,
    gather: Meet = meet,
    shrink: Shrink | None = None,
) -> Run:
    """Run or continue a federation and write ``results/federation`` and ``checkpoints``.

    Args:
        grid: The engine.
        root: Project folder.
        params: The run's.
        base: Starting policy and its digest, as ``sources.lock.json`` has them.
        listener: Told of every event.
        gather: Finds the run's sites.
        shrink: How far from the starting policy it begins, see :func:`zk0.federation.start.locked_shrink`.

    Returns:
        What was written to ``run.json``.

    Raises:
        FederationError: A round could not be completed; complete rounds are kept.
    """
    started, began = datetime.now(UTC), time.perf_counter()
    server = Server(grid, params, "", base, Journal(root / EVENTS, listener), root / STATES / "waiting")
    manifests = gather(server)
    server.run = config_digest(params, base[1], manifests, shrink)
    states = StateFolder(root / STATES / server.run)
    server.journal = _journal(root / EVENTS, states.folder / EVENTS.name, listener, started)
    warm = warm_start(root, params, base[0])
    check_alike(manifests)
    check_cameras(manifests, warm.start, params.data.missing_cameras)
    drawn = sites_drawn(len(manifests), params.federation.fraction)
    check_enough(params.federation, drawn)
    local_names(warm.first, params.federation.local)
    begin_privacy(server, states.folder, warm.start, drawn)
    sizes = _sizes(warm.start.policy)
    server.journal.say("strategy", cost(params.federation, drawn, sizes["trainable_bytes"]), round=0)

    start = warm.first
    if shrink:
        start = drawn_back(root, params, start, shrink)
        told = f"begins at {shrink['kept']:.0%} of the way from {shrink['to']['source']} to {base[0]}"
        server.journal.say("start", told, round=0)
    state = run_rounds(server, states, start, _publisher(root, states), at_sites=shrink is None)
    code = revision(root)
    run = _outcome(
        server,
        state,
        started=started.isoformat(timespec="seconds"),
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_s=time.perf_counter() - began,
        policy=sizes,
        versions=versions(),
        machine=machine(),
        git=Git(revision=code.commit, dirty=code.dirty),
        checkpoints=_export(root, states, state, warm),
    )
    run = _as_told(states.folder / RUN.name, run, trained=state.resumed[-1:] != (state.round,))
    write(root, run)
    server.journal.say("done", f"{state.round} rounds, best is round {state.best_round}", round=state.round)
    return run


def _as_told(kept: Path, run: Run, trained: bool) -> Run:
    """What was told when the last round was made: called for again, a complete run is no other run."""
    if not trained and kept.is_file() and (before := parse(read_mapping(kept), Run, str(kept))).params == run.params:
        return before
    write_json(kept, run.content())
    return run


def _publisher(root: Path, states: StateFolder) -> After:
    """Writes the rounds' rows and curves: what there is when the run begins or goes on, and then each round's."""
    begun = False

    def publish(state: RoundState, seconds: float | None) -> None:
        nonlocal begun
        if begun:  # what was there before may be a link to DVC's cache, and is not written to
            last, best = state.rounds[-1], state.best_round == state.round
            append_lines(root / ROUNDS, [last.model_copy(update={"is_best": best, "save_s": seconds})])
            with (root / _CURVES).open("a") as stream:
                stream.write(curves([last]))
            return
        rows = rows_saved(states.rows(state), {} if seconds is None else {state.round: seconds})
        write_lines(root / ROUNDS, rows)
        write_text(root / _CURVES, CURVES + curves(rows))
        begun = True

    return publish


def _export(root: Path, states: StateFolder, state: RoundState, warm: Warm) -> Checkpoints:
    """Write the best and the last global model as checkpoints, and tell where, their digests and rounds."""
    stats, exported = state.moments().normalisation(), dict[str, Checkpoint]()
    for name, number in (("best", state.best_round), ("last", state.round)):
        kept, path = states.load(number), CHECKPOINTS / name
        warm.show(kept.digest, kept.tensors)
        save_checkpoint(warm.fitted(stats), root / path)
        exported[name] = Checkpoint(path=str(path), digest=digest_folder(root / path), round=number)
    return Checkpoints(**exported)


def _outcome(server: Server, state: RoundState, **more: Any) -> Run:
    """``run.json``: what the server and its last state tell of it, and what else it has."""
    moments, first = state.moments(), state.rounds[0]
    return Run(
        run=server.run,
        params=server.params.model_dump(mode="json"),
        base=Origin(source=server.base[0], digest=server.base[1]),
        sites={manifest.site: manifest.content() for manifest in server.manifests.values()},
        rounds=state.round,
        stopped=why_stopped(server.params, state.rounds, server.central()),
        best_round=state.best_round,
        best_held_out_loss=state.rounds[state.best_round].held_out_loss,
        last_held_out_loss=state.rounds[-1].held_out_loss,
        start_held_out_loss=first.held_out_loss,
        resumed_at_rounds=list(state.resumed),
        stats={f: {k: v.tolist() for k, v in s.items()} for f, s in moments.normalisation().items()},
        limits=moments.limits().content(),
        statistics={"left_out": first.left_out, "bounded": first.bounded},
        **_privacy(server, state),
        **more,
    )


def _journal(shown: Path, kept: Path, listener: Listener, started: datetime) -> Journal:
    """The run's journal, kept with its state so that a resumed run has its whole history.

    What was said before it was known which run this is, since ``started``, belongs to it too.
    """
    since = started.isoformat(timespec="milliseconds")
    meeting = [event for event in events_so_far(shown) if event.time and event.time >= since]
    events = [*events_so_far(kept), *meeting]
    shown.unlink(missing_ok=True)
    for path in (kept, shown) if events else ():
        write_lines(path, events)
    copy = Journal(kept)

    def both(event: Event) -> None:
        copy.note(event)
        listener(event)

    return Journal(shown, both)


def _sizes(policy: Any) -> dict[str, int]:
    trained = [p for p in policy.parameters() if p.requires_grad]
    return {
        "parameters": sum(p.numel() for p in policy.parameters()),
        "trainable_parameters": sum(p.numel() for p in trained),
        "trainable_tensors": len(trained),
        "trainable_bytes": sum(p.numel() * p.element_size() for p in trained),
    }


def begin_privacy(server: Server, folder: Path, start: LoadedPolicy, drawn: int) -> None:
    """Give a server its normalisation and, where privacy is central, its ledger; say what the budget affords.

    Args:
        server: Has met its sites; left as it is where privacy is off.
        folder: The run's state.
        start: The starting policy.
        drawn: How many sites train in a round.

    Raises:
        FederationError: The budget does not afford a single round, or delta is too large to promise anything.
        StageError: The starting policy has no normalisation for this arm, or the ledger is damaged.
    """
    params, rounds, sites = server.params.privacy, server.params.federation.rounds, len(server.sites)
    if params.mode == "off":
        return
    if params.delta >= 1 / sites:
        raise FederationError(
            f"privacy.delta {params.delta:g} allows that one of {sites} sites is told of outright; make it well below "
            f"1 / {sites}"
        )
    if (most := affordable_rounds(params, rounds)) < 1:
        raise FederationError(
            f"privacy.target_epsilon {params.target_epsilon:g} does not afford a single round: it would cost "
            f"{planned_epsilon(params, 1):.3g}. Raise privacy.noise_multiplier, report_noise_multiplier or the budget"
        )
    trained = not server.base[0].startswith("random:")
    server.public = public_moments(start, trained, server.params.data.fps)
    if params.mode == "central":
        asked = sites_drawn(sites, server.params.federation.judges)
        server.privacy = CentralPrivacy.open(params, folder, asked, drawn)
    server.journal.say(
        "privacy",
        f"privacy {params.mode}: epsilon {params.target_epsilon:g} at delta {params.delta:g} affords {most} of "
        f"{rounds} rounds; all would cost {planned_epsilon(params, rounds):.3g}",
        round=0,
    )


def _privacy(server: Server, state: RoundState) -> dict[str, Privacy]:
    """For ``run.json``: what was spent after a run's last state; empty where privacy is off.

    Of mode ``site`` it is what the site that spent most says of its own.
    """
    params = server.params.privacy
    if params.mode == "off":
        return {}
    spent = server.privacy.ledger.epsilon if server.privacy else state.rounds[-1].epsilon
    return {"privacy": Privacy(mode=params.mode, unit="site", epsilon=spent, delta=params.delta)}
