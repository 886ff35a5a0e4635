"""A federation of several sites on small params, and what it must give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zk0.params import Params, load_params, with_changes
from zk0.records.run import Round, SiteRound
from zk0.testing.records import Finding, SimulatedRound

RESULT = Path("simulation.json")
_PROFILE = Path("profiles/demo.yaml")
# Small enough for a minute or two on two cores, and long enough for every site's loss to fall.
_SMALL: dict[str, Any] = {
    "data.sites": {
        "red-cube": "sim:push-red-cube-left",
        "green-ball": "sim:push-green-ball-right",
        "magenta-disc": "sim:press-magenta-disc",
    },
    "data.unseen": {},
    "data.episodes": 5,
    "training.local_steps": 10,
    "training.batch": 8,
    "training.warmup_steps": 2,
    "federation.rounds": 3,
    "evaluation.loss_draws": 4,
    "evaluation.rollouts": 0,
    "evaluation.videos": 0,
}


def simulation_params(root: Path) -> Params:
    """The demo profile on three sites and few steps, for a folder that is not the project's root.

    Raises:
        ParamsError: The profile is missing or does not allow it.
    """
    params = load_params(root / _PROFILE)
    # Only a folder's place depends on where the run is.
    base = root.resolve() / params.policy.base
    return with_changes(params, _SMALL | ({"policy.base": str(base)} if base.is_dir() else {}))


def rounds_of(rows: Sequence[Round]) -> tuple[SimulatedRound, ...]:
    """The lines of rounds.jsonl, as far as they are judged."""
    return tuple(
        SimulatedRound(
            round=row.round,
            held_out_loss=row.held_out_loss,
            train_loss=row.train_loss,
            sites=tuple(
                name
                for name, site in row.sites.items()
                if _answered(site, trained=row.round > 0) and name not in row.left_out
            ),
            seconds=row.round_s,
        )
        for row in rows
    )


def _answered(site: SiteRound, trained: bool) -> bool:
    losses = [site.held_out_loss, *([site.train_loss] if trained else [])]
    return all(loss is not None and math.isfinite(loss) for loss in losses)


def judge_rounds(rounds: Sequence[SimulatedRound], sites: Sequence[str], asked: int) -> tuple[Finding, ...]:
    """Whether all rounds were run, every site took part in each, and the losses fell.

    Args:
        rounds: Round 0 first.
        sites: Who should have answered.
        asked: How many rounds the params ask for.
    """
    done = [one.round for one in rounds]
    absent = [f"{site} in round {one.round}" for one in rounds for site in sites if site not in one.sites]
    held_out = [one.held_out_loss for one in rounds]
    trained = [one.train_loss for one in rounds if one.train_loss is not None]
    return (
        Finding(
            name="all rounds were run",
            passed=done == list(range(asked + 1)),
            found=f"rounds {', '.join(map(str, done)) or 'none'}",
            expected=f"0 to {asked}",
        ),
        Finding(
            name="every site answered in every round",
            passed=bool(rounds) and not absent,
            found=f"absent: {', '.join(absent)}" if absent else f"{len(sites)} sites",
            expected=", ".join(sites),
        ),
        _fell("held-out loss fell", held_out, "the last below the starting model's"),
        _fell("training loss fell", trained, "the last round's below the first's"),
    )


def _fell(name: str, losses: Sequence[float], expected: str) -> Finding:
    fell = len(losses) > 1 and losses[-1] < losses[0]
    return Finding(name=name, passed=fell, found=" ".join(f"{x:.4f}" for x in losses) or "none", expected=expected)
