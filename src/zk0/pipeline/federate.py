"""federate: run the federation on the engine that params name."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from zk0.console import console
from zk0.data.manifest import Manifest, read_manifests, unfit_sites
from zk0.environment.code import CODE_LOCK
from zk0.errors import StageError
from zk0.federation.attacks import Liar, app_with
from zk0.federation.discovery import meet
from zk0.federation.engine import engine_for
from zk0.federation.privacy.central import LEDGER
from zk0.federation.run import run_federation
from zk0.federation.server import Server
from zk0.federation.start import locked_base, locked_shrink
from zk0.files import read_json, write_text
from zk0.params import Params
from zk0.pipeline import features
from zk0.records.files import read
from zk0.records.journal import print_event
from zk0.records.paths import STATES
from zk0.records.run import Run

_MADE_BY = "code.json"  # in the state of a run that was completed


def run(root: Path, params: Params, again: str = "zk0 federate", liar: Liar | None = None) -> None:
    """Run or continue the federation; Ctrl-C or SIGTERM loses at most the round in progress.

    Args:
        root: Project folder.
        params: The run's.
        again: The command that goes on with it, for a person who stopped it.
        liar: The partition of a site that lies, and how, for a study of what comes of it.

    Raises:
        FederationError: Too few good replies.
        StageError: Stopped by the user; says how to go on.
    """
    torch.set_num_threads(params.threads)
    if params.features.ahead and params.engine.name == "inprocess":  # workers do it side by side
        features.build(root, params)
    sites, _ = read_manifests(root)
    unfit = unfit_sites(root)
    code = _code(root)
    _set_aside_other(root / STATES, params, code)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with engine_for(root, params, len(sites), partial(app_with, liar)) as grid:
            run_federation(
                grid,
                root,
                params,
                locked_base(root),
                print_event,
                lambda server: _meet(server, unfit),
                locked_shrink(root),
            )
    except KeyboardInterrupt:
        raise StageError(f"stopped; complete rounds are saved, and `{again}` goes on from the last one") from None
    if code:
        write_text(root / STATES / read(root, Run).run / _MADE_BY, code)
    console.print(f"global model in {root / 'checkpoints'}")


def _meet(server: Server, unfit: Mapping[str, str]) -> list[Manifest]:
    """The sites of this process, and a word in the run's journal of each that takes no part in it."""
    for site, reason in unfit.items():
        server.leave_out(site, 0, f"its data is not fit: {reason}")
    return meet(server)


def _code(root: Path) -> str | None:
    """Which code decides the result, as `zk0 validate` found it; None where there is no pipeline to be stale."""
    return json.dumps(read_json(root / CODE_LOCK)["code"]["federate"]) if (root / CODE_LOCK).is_file() else None


def _set_aside_other(states: Path, params: Params, code: str | None) -> None:
    """Remove what other code made to the end, or DVC would call for the stage and get the same model again.

    A run that was stopped goes on, whatever its code. So does a private one: what it spent is in its state.
    """
    if code is None or params.privacy.mode != "off":
        return
    for note in states.glob(f"*/{_MADE_BY}"):
        if note.read_text().strip() != code and not (note.parent / LEDGER).exists():
            console.print(f"the code has changed since {note.parent.name} was trained: its rounds are not used again")
            shutil.rmtree(note.parent)
