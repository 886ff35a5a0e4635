"""study: prepare a project for a study and run its pieces.

The study has recordings, manifests, features and models in a folder of its own below .cache/studies, named by what
decides its data. Its results lie in results/studies and are small enough to be versioned.
"""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import torch
import xxhash

from zk0.console import console
from zk0.data.manifest import MANIFESTS
from zk0.data.readings import MEASURED
from zk0.files import read_json, write_json
from zk0.params import Params, with_changes
from zk0.pipeline import prepare
from zk0.sources import LOCK, Source
from zk0.sources_lock import base_folder, resolve_sources
from zk0.study.project import StudyProject
from zk0.study.results_store import STUDIES, Piece, StudyFolder
from zk0.study.runner import Runner
from zk0.study.studies import Study
from zk0.study.tables import overview

WORK = Path(".cache/studies")
_DONE = "prepared.json"


def run(root: Path, study: Study, only: str | None = None) -> list[Piece]:
    """Run a study, or go on with it: pieces that are there are not made again.

    Args:
        root: Project folder.
        study: See :func:`zk0.study.studies.study_named`.
        only: Name of one arm (None = all).

    Raises:
        ValueError: No such arm; names the nearest.
        StageError: Data that is not fit, leakage, an arm that fails, or Ctrl-C; complete pieces are kept.
    """
    torch.set_num_threads(study.params.threads)
    here = with_changes(study.params, _absolute(root, study.params))
    project = prepared(root, here)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    pieces = Runner.of(root, project, replace(study, params=here)).run(study.params, only)
    folder = StudyFolder(root / STUDIES / study.name)
    console.print(overview(folder))
    return pieces


def prepared(root: Path, params: Params) -> StudyProject:
    """The study's project, its data recorded or found, checked and split; done once for each set of data."""
    decides = params.model_dump(mode="json", include={"seed": True, "data": True, "policy": {"base"}})
    digest = xxhash.xxh3_64_hexdigest(json.dumps(decides).encode())[:12]
    folder = (root / WORK / digest).resolve()
    lock = resolve_sources(params, folder)
    done = folder / _DONE
    if not done.exists() or read_json(done) != lock or not (folder / MANIFESTS).is_dir():
        write_json(folder / LOCK, lock)
        prepare.run(folder, params)
        write_json(done, lock)
    return StudyProject.open(folder, params)


def _absolute(root: Path, params: Params) -> dict[str, object]:
    """Paths of this project as seen from the study's folder."""
    changes: dict[str, object] = {}
    if (folder := base_folder(params.policy.base, params.tracking.model, root)) is not None:
        changes["policy.base"] = str(folder.resolve())
    changes["data.calibrations"] = {
        name: str((root / Path(file).expanduser()).resolve()) if isinstance(file, str) and file != MEASURED else file
        for name, file in params.data.calibrations.items()
    }
    for part in ("sites", "unseen"):
        changes[f"data.{part}"] = {name: _source(root, text) for name, text in getattr(params.data, part).items()}
    return changes


def _source(root: Path, text: str) -> str:
    source = Source.parse(text)
    if source.kind != "local":
        return text
    return f"local:{(root / Path(source.name).expanduser()).resolve()}"
