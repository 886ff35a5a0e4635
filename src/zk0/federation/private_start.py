"""What a private run settles before it asks any site for anything, and what it tells at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zk0.federation.privacy.accountant import affordable_rounds, planned_epsilon
from zk0.federation.privacy.central import CentralPrivacy
from zk0.federation.privacy.public import public_moments
from zk0.federation.server import FederationError, Server
from zk0.federation.state import RoundState
from zk0.policy.checkpoint import LoadedPolicy


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
        server.privacy = CentralPrivacy.open(params, folder, sites, drawn)
    server.journal.say(
        "privacy",
        f"privacy {params.mode}: epsilon {params.target_epsilon:g} at delta {params.delta:g} affords {most} of "
        f"{rounds} rounds; all would cost {planned_epsilon(params, rounds):.3g}",
        round=0,
    )


def told_privacy(server: Server, state: RoundState) -> dict[str, Any]:
    """For ``run.json``: what was spent after a run's last state; empty where privacy is off.

    Of mode ``site`` it is what the site that spent most says of its own.
    """
    params = server.params.privacy
    if params.mode == "off":
        return {}
    spent = server.privacy.ledger.epsilon if server.privacy else state.rows[-1].get("epsilon")
    return {"privacy": {"mode": params.mode, "unit": "site", "epsilon": spent, "delta": params.delta}}
