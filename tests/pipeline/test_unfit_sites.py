"""A site whose data is not fit: the run is refused, or goes on without it and tells, as params say."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spoiling import both

from zk0.data.manifest import read_manifests, unfit_sites
from zk0.errors import DataError
from zk0.federation.site import forget
from zk0.files import write_json
from zk0.network.config import Alerts, DeploymentConfig
from zk0.operations.monitor.alerts import find_alerts
from zk0.operations.monitor.snapshot import take
from zk0.params import Params, parse_params
from zk0.pipeline import federate, prepare
from zk0.records.files import read_journal, read_rounds
from zk0.sources_lock import resolve_sources


@pytest.fixture
def project(recorded: Path, tmp_path: Path) -> Path:
    """Three owners' recordings; the second one's are in radians."""
    for number, name in enumerate(("ada", "ben", "cem")):
        folder = Path(shutil.copytree(recorded, tmp_path / name))
        both(folder, np.deg2rad if name == "ben" else lambda values, by=number: values + by / 8)
    return tmp_path


def params(content: dict[str, Any], unfit: str, least: float) -> Params:
    data = {"sites": {name: f"local:{name}" for name in ("ada", "ben", "cem")}, "held_out": 0.25, "unfit": unfit}
    return parse_params({**content, "data": data, "federation": {"rounds": 1, "min_replies": least}})


def prepared(root: Path, found: Params) -> Params:
    write_json(root / "sources.lock.json", resolve_sources(found, root))
    prepare.run(root, found)
    forget()
    return found


def test_a_run_goes_on_without_it_and_everybody_is_told(
    project: Path, params_content: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = prepared(project, params(params_content, "leave-out", 0.6))

    assert [(m.site, m.partition) for m in read_manifests(project)[0]] == [("ada", 0), ("cem", 1)]
    assert "'ben' is left out, its data is not fit" in capsys.readouterr().out
    assert list(unfit_sites(project)) == ["ben"]

    federate.run(project, found)

    reason = read_rounds(project)[0].left_out["ben"]
    assert reason.startswith("its data is not fit: ") and "radians" in reason
    (event,) = [event for event in read_journal(project) if event.event == "site-left-out"]
    assert (event.round, event.site) == (0, "ben")
    config, limits = DeploymentConfig(services=()), Alerts(disk_free_bytes=1)
    (alert,) = find_alerts(take(project, config), limits)
    assert (alert.rule, alert.subject) == ("site-unfit", "site ben") and "radians" not in alert.summary

    both(project / "ben", np.rad2deg)
    federate.run(project, prepared(project, found))
    assert find_alerts(take(project, config), limits) == []


def test_it_is_refused_where_params_say_so_or_too_few_are_left(project: Path, params_content: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="radians"):
        prepared(project, params(params_content, "refuse", 0.1))
    with pytest.raises(DataError, match=r"2 of 3 sites are left, and federation\.min_replies asks for 0\.9 of them"):
        prepared(project, params(params_content, "leave-out", 0.9))
    assert not (project / "data" / "manifests").exists()
