"""A nightly run starts from params' base, the champion, or what the champion started from where nothing is new."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from zk0.federation.site import forget
from zk0.files import write_json
from zk0.models.nightly import nightly_start
from zk0.params import Params, with_changes
from zk0.pipeline import federate, prepare
from zk0.sources_lock import resolve_sources
from zk0.tracking.project import track
from zk0.tracking.promotion import promote

EXPERIMENT, MODEL = "zk0", "zk0-smolvla"


def one_night(root: Path, params: Params) -> int:
    """Prepare, federate and track; the version it became."""
    write_json(root / "sources.lock.json", resolve_sources(params, root))
    prepare.run(root, params)
    forget()
    federate.run(root, params)
    return track(root, EXPERIMENT, MODEL).model_version


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, recorded: Path, small_params: Params) -> tuple[Path, Params]:
    """A project that has federated once, on a recording of its own; nobody is champion yet."""
    root = tmp_path_factory.mktemp("nightly")
    shutil.copytree(recorded, root / "cubes")
    params = with_changes(small_params, {"data.sites": {"cubes": "local:cubes"}, "federation.rounds": 1})
    one_night(root, params)
    return root, params


def champions(root: Path, params: Params, version: int) -> str | None:
    promote(root, MODEL, version, params.promotion, force=True)
    return nightly_start(root, params)


def test_from_night_to_night(project: tuple[Path, Params]) -> None:
    root, params = project
    assert nightly_start(root, params) is None

    # The last run made the champion, and nothing is new since: what it started from, by which all stages are fresh.
    assert champions(root, params, 1) is None

    changes: list[dict[str, Any]] = [{"training.local_steps": 1}, {"data.leave_out": {"cubes": [7]}}]
    for change in changes:
        start = nightly_start(root, with_changes(params, change))
        assert start is not None and (root / start / "model.safetensors").is_file() and not Path(start).is_absolute()
    assert nightly_start(root, with_changes(params, {"data.sites": {"cubes": "local:absent"}})) == start

    tonight = with_changes(params, {"data.leave_out": {"cubes": [7]}})
    version = one_night(root, with_changes(tonight, {"policy.base": start}))
    assert nightly_start(root, tonight) == start  # not promoted: the champion is what it was
    assert champions(root, tonight, version) == start  # promoted: still what that night started from
    assert nightly_start(root, with_changes(tonight, {"policy.warm_start": 0.25})) not in (None, start)
    newer = nightly_start(root, params)
    assert newer not in (None, start)
