"""simulate: a small federation in a folder of its own, judged by what it must give."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from zk0.console import console
from zk0.data.manifest import read_manifests
from zk0.errors import StageError
from zk0.files import write_json, write_text
from zk0.params import Params, load_params, with_changes
from zk0.pipeline import federate, prepare
from zk0.policy.checkpoint import load_checkpoint
from zk0.policy.trainable import digest_tensors, trainable_tensors
from zk0.records.files import read, read_rounds
from zk0.records.run import Round, Run, SiteRound
from zk0.sources import LOCK
from zk0.sources_lock import resolve_sources
from zk0.testing.records import (
    SIMULATION_RESULT,
    Finding,
    SimulatedRound,
    Simulation,
    TestingError,
    write_record,
)

_MARK = ".simulation"
_PROFILE = Path("profiles/demo.yaml")
# Small enough for a minute or two on two cores, and long enough for every site's loss to fall.
_SMALL: Mapping[str, object] = {
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


def run(root: Path, folder: Path, params: Params | None = None) -> Simulation:
    """Record, prepare and federate anew, and write ``simulation.json``.

    Args:
        root: Project folder, for its demo profile and its base policy.
        folder: The simulation's own; an earlier one there is removed.
        params: Of the simulation; small ones by default.

    Raises:
        TestingError: It did not give what it must, or the folder holds something else; says what.
        StageError: A stage of it failed.
    """
    params = params or simulation_params(root)
    began = time.perf_counter()
    _lay_out(folder, params)
    prepare.run(folder, params)
    federate.run(folder, params)
    rounds = rounds_of(read_rounds(folder))
    sites = tuple(manifest.site for manifest in read_manifests(folder)[0])
    found = Simulation(
        sites=sites,
        findings=(
            *judge_rounds(rounds, sites, params.federation.rounds),
            *(_loads(folder, name) for name in ("best", "last")),
        ),
        rounds=rounds,
        seconds=time.perf_counter() - began,
    )
    write_record(folder / SIMULATION_RESULT, found)
    for finding in found.findings:
        console.print(f"{'passed' if finding.passed else 'FAILED'}  {finding.name}: {finding.found}", markup=False)
    if failed := [f for f in found.findings if not f.passed]:
        told = "\n".join(f"{f.name}: {f.found}, expected {f.expected}" for f in failed)
        raise TestingError(f"the simulation in {folder} did not give what it must:\n{told}")
    return found


def _lay_out(folder: Path, params: Params) -> None:
    """An empty project with these params: nothing of an earlier simulation counts for this one."""
    if folder.exists():
        strange = any(folder.iterdir()) and not (folder / _MARK).is_file()
        if strange:
            raise StageError(f"{folder} holds something that is no simulation; name another folder, or an empty one")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    content = yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False)
    write_text(folder / _MARK, "params.yaml of this folder was written by `zk0 simulate`")
    write_text(folder / "params.yaml", content)
    write_json(folder / LOCK, resolve_sources(params, folder))


def _loads(folder: Path, name: str) -> Finding:
    """Whether an exported checkpoint loads and holds its round's model, tensor for tensor."""
    kept = read(folder, Run).checkpoints
    told = kept.best if name == "best" else kept.last
    expected = f"the tensors of round {told.round}"
    title = f"the {name} checkpoint loads"
    try:
        tensors = trainable_tensors(load_checkpoint(folder / told.path).policy)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        return Finding(name=title, passed=False, found=f"{type(error).__name__}: {error}", expected=expected)
    digest = digest_tensors(tensors)
    same = any(one.round == told.round and one.digest == digest for one in read_rounds(folder))
    found = expected if same else f"other tensors than those of round {told.round}"
    return Finding(name=title, passed=same, found=found, expected=expected)


def simulation_params(root: Path) -> Params:
    """The demo profile on three sites and few steps, for a folder that is not the project's root.

    Raises:
        ParamsError: The profile is missing or does not allow it.
    """
    params = load_params(root / _PROFILE)
    # Only a folder's place depends on where the run is.
    base = root.resolve() / params.policy.base
    return with_changes(params, {**_SMALL, **({"policy.base": str(base)} if base.is_dir() else {})})


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
