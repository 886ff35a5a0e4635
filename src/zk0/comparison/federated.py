"""The federated arm: the real server and sites, in process, in a project folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from zk0.comparison.arms import POISONED_PARTITION
from zk0.comparison.project import StudyProject
from zk0.comparison.trained import Cost, Trained
from zk0.federation.attacks import Attack, poisoned
from zk0.federation.client_app import app as honest
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.rounds import moments_in
from zk0.federation.run import STATES, run_federation
from zk0.federation.state import StateFolder
from zk0.params import Params

_LINKED = ("data", ".cache")  # recordings, manifests and features are the study's own
_COPIED = ("sources.lock.json",)


def federate(project: StudyProject, params: Params, folder: Path, attack: str | None = None) -> Trained:
    """Run or continue a federation and give its best model.

    Args:
        project: Whose sites.
        params: With the training seed as ``seed``.
        folder: The run's own; a run that was stopped goes on there. The caller removes it.
        attack: What the site of ``POISONED_PARTITION`` does (None = it is honest).

    Raises:
        FederationError: A round could not be completed; complete rounds are kept in ``folder``.
    """
    _lay_out(project.root, folder)
    app = poisoned(honest, POISONED_PARTITION, Attack(attack)) if attack else honest  # type: ignore[arg-type]
    grid = InProcessGrid(app, folder, len(project.sites), params.data.decoded_limit_bytes)
    project.forget()  # only one starting policy at a time: the run loads its own
    try:
        report = run_federation(grid, folder, params, project.base)
    finally:
        project.forget()
    states = StateFolder(folder / STATES / report["run"])
    last, best = states.load(report["rounds"]), states.load(report["best_round"])
    rows = [row for row in last.rows if row["round"]]
    cost = Cost(
        steps=len(rows) * params.training.local_steps,
        samples=int(sum(site["examples"] for row in rows for site in row["sites"].values())),
        seconds=sum(row["round_s"] for row in rows),
        bytes=int(sum(row["bytes_up"] + row["bytes_down"] for row in last.rows)),
        best=best.round,
        losses=tuple(row["held_out_loss"] for row in rows),
        epsilon=report.get("privacy", {}).get("epsilon"),
    )
    return Trained(best.tensors, moments_in(best).normalisation(), cost)


def _lay_out(source: Path, folder: Path) -> None:
    """A project that shares data and features with another and has everything else for itself."""
    folder.mkdir(parents=True, exist_ok=True)
    (source / ".cache").mkdir(exist_ok=True)
    for name in _LINKED:
        link = folder / name
        if not link.is_symlink():
            link.symlink_to((source / name).resolve(), target_is_directory=True)
    for name in _COPIED:
        shutil.copy(source / name, folder / name)
