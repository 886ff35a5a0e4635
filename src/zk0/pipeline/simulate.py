"""simulate: a small federation in a folder of its own, judged by what it must give."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import yaml

from zk0.console import console
from zk0.data.manifest import read_manifests
from zk0.errors import StageError
from zk0.files import write_json, write_text
from zk0.params import Params
from zk0.pipeline import federate, prepare
from zk0.policy.checkpoint import load_checkpoint
from zk0.policy.trainable import digest_tensors, trainable_tensors
from zk0.records.files import read, read_rounds
from zk0.records.run import Run
from zk0.sources import LOCK
from zk0.sources_lock import resolve_sources
from zk0.testing.records import Finding, Simulation, TestingError, write_record
from zk0.testing.simulation import RESULT, judge_rounds, rounds_of, simulation_params

_MARK = ".simulation"


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
    write_record(folder / RESULT, found)
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
