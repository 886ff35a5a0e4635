"""The federated arm: the real server and sites, in process, in a project folder of its own."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from zk0.federation.attacks import Attack, poisoned
from zk0.federation.client_app import app as honest
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.run import config_digest, run_federation
from zk0.federation.server import FederationError
from zk0.federation.state import StateFolder
from zk0.params import Params
from zk0.records.paths import STATES
from zk0.study.arms import POISONED_PARTITION
from zk0.study.project import StudyProject
from zk0.study.trained import Cost, Trained

_log = logging.getLogger(__name__)
_LINKED = ("data", ".cache")  # recordings, manifests and features are the study's own
_COPIED = ("sources.lock.json",)


def federate(project: StudyProject, params: Params, folder: Path, attack: str | None = None) -> Trained:
    """Run or continue a federation and give its best model.

    Noise and attacks can drive a model so far that the sites' losses are numbers no more, and the run ends there. For
    an arm that has either, what it reached until then is its result.

    Args:
        project: Whose sites.
        params: With the training seed as ``seed``.
        folder: The run's own; a run that was stopped goes on there. The caller removes it.
        attack: What the site of ``POISONED_PARTITION`` does (None = it is honest).

    Raises:
        FederationError: A round could not be completed, and neither noise nor an attack can be why, or it was the
            first; complete rounds are kept in ``folder``.
    """
    _lay_out(project.root, folder)
    app = poisoned(honest, POISONED_PARTITION, Attack(attack)) if attack else honest  # type: ignore[arg-type]
    grid = InProcessGrid(app, folder, len(project.sites), params.data.decoded_limit_bytes)
    project.forget()  # only one starting policy at a time: the run loads its own
    try:
        run_federation(grid, folder, params, project.base)
    except FederationError as error:
        if attack is None and params.privacy.mode == "off":
            raise
        reached = _states(project, params, folder).load_last()
        if reached is None or not reached.round:
            raise
        _log.warning("the arm ends with round %d of %d: %s", reached.round, params.federation.rounds, error)
    finally:
        project.forget()
    states = _states(project, params, folder)
    last = states.load_last()
    assert last is not None  # a run that neither failed nor was stopped saves its rounds
    best = states.load(last.best_round)
    rows = [row for row in last.rows if row["round"]]
    cost = Cost(
        steps=len(rows) * params.training.local_steps,
        samples=int(sum(site["examples"] for row in rows for site in row["sites"].values())),
        seconds=sum(row["round_s"] for row in rows),
        bytes=int(sum(row["bytes_up"] + row["bytes_down"] for row in last.rows)),
        best=best.round,
        losses=tuple(row["held_out_loss"] for row in rows),
        epsilon=last.rows[-1].get("epsilon"),
    )
    return Trained(best.tensors, best.moments().normalisation(), cost)


def _states(project: StudyProject, params: Params, folder: Path) -> StateFolder:
    """The run's rounds."""
    run = config_digest(params, project.base[1], [manifest.summary() for manifest in project.sites])
    return StateFolder(folder / STATES / run)


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
