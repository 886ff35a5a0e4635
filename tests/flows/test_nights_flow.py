"""Nights through the real deployment: nothing new, new episodes, spoiled ones; and a whole week."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import yaml
from prefect_api import states_of
from spoiling import both
from tests_support import Project
from webhook_receiver import receiving

from zk0.network.config import Alerts, DeploymentConfig
from zk0.operations.monitor.service import Monitor
from zk0.params import parse_params
from zk0.records.files import read, read_rounds
from zk0.records.results import Tracking
from zk0.records.run import Run
from zk0.study.project import prepared, with_absolute_paths
from zk0.study.spoiled import spoiled
from zk0.study.week import week_of
from zk0.tracking.promotion import Promotion, read_promotion

pytestmark = pytest.mark.timeout(6000)


@dataclass(frozen=True)
class Nights:
    """Nightly runs of a served project.

    Attributes:
        project: Whose params change from night to night.
        api: The Prefect server's.
    """

    project: Project
    api: str

    def pass_one(self) -> str:
        """The documented command; the name of the state in which the flow ended."""
        before = {state["id"] for state in states_of(self.api, "federate")}
        words = ("prefect", "deployment", "run", "federate/nightly", "--watch")
        self.project.run(*words, PREFECT_API_URL=self.api, timeout=580)
        (new,) = [s for s in states_of(self.api, "federate") if not s["auto"] and s["id"] not in before]
        return str(new["name"])

    @property
    def run(self) -> Run:
        """What the last night that trained left."""
        return read(self.project.root, Run)

    @property
    def version(self) -> int:
        """Of the model that the last night registered."""
        return read(self.project.root, Tracking).model_version

    def decided(self, version: int) -> Promotion:
        """The gate's, with its reasons, from MLflow's files."""
        return read_promotion(self.project.root, "zk0-smolvla", version)


@pytest.fixture
def nights(served: tuple[Project, str]) -> Iterator[Nights]:
    """The project in which other tests may have made a nightly run already; its params come back afterwards."""
    project, api = served
    before = (project.root / "params.yaml").read_text()
    yield Nights(project, api)
    (project.root / "params.yaml").write_text(before)


def test_three_nights(nights: Nights) -> None:
    project = nights.project
    assert nights.pass_one() in ("Completed", "Unchanged")
    first, before = nights.run, nights.version
    project.run("zk0", "promote", str(before), "--force")
    assert nights.pass_one() == "Unchanged"
    assert nights.run == first

    shutil.copytree(project.root / "data/recordings/red", project.root / "lab")
    both(project.root / "lab", lambda values: values + 0.5)
    project.change_params(lambda p: p["data"].update(unfit="leave-out"))
    project.change_params(lambda p: p["data"]["sites"].update(lab="local:lab"))
    project.change_params(lambda p: p["federation"].update(min_replies=0.6))
    assert nights.pass_one() == "Completed"
    second = nights.run
    assert list(second.sites) == ["red", "disc", "lab"] and second.base.digest == first.checkpoints.best.digest
    decided = nights.decided(nights.version)
    assert (decided.before, decided.decision.against) == (before, f"version {before}")
    assert decided.outcome == ("refused" if decided.decision.reasons else "promoted")

    both(project.root / "lab", np.deg2rad)
    assert nights.pass_one() == "Completed"
    assert list(nights.run.sites) == ["red", "disc"]
    assert "radians" in read_rounds(project.root)[0].left_out["lab"]
    assert "lab is left out" in (project.root / "results/report.html").read_text()
    with receiving() as receiver:
        alerts = Alerts(webhook=receiver.address, disk_free_bytes=1)
        Monitor(project.root, DeploymentConfig(services=(), prefect_url=None, alerts=alerts)).look()
    (told,) = receiver.of("site-unfit")
    assert told["subject"] == "site lab" and told["status"] == "firing"


@pytest.mark.release
def test_a_whole_week(nights: Nights) -> None:
    """The study's own week at small size; but nobody lies, which no deployment can be told to do."""
    project = nights.project
    content = yaml.safe_load((project.root / "params.yaml").read_text())
    content["data"]["sites"] |= {"green": "sim:push-green-ball-right", "bar": "sim:pull-blue-bar"}
    content["data"] |= {"episodes": 8, "held_out": 0.34}
    week = week_of(with_absolute_paths(project.root, parse_params(content)), 1)
    world = prepared(project.root, week.params)
    owners = {manifest.site: manifest for manifest in world.sites}
    newer = spoiled(world.root / "data/recordings" / week.spoiled, project.root / "spoiled")

    ended, sites, unfit = [], [], []
    for night in week.nights:
        params = week.params_of(night, owners, f"local:{newer}")
        (project.root / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False))
        ended.append(nights.pass_one())
        sites.append(set(nights.run.sites))
        unfit.append(list(read_rounds(project.root)[0].left_out))

    assert ended == ["Unchanged" if night.event == "nothing" else "Completed" for night in week.nights]
    left_out = [{week.spoiled} if night.event == "spoil" else set() for night in week.nights]
    assert sites == [set(night.sites) - out for night, out in zip(week.nights, left_out, strict=True)]
    assert [set(names) for names in unfit] == left_out
    versions = list(range(nights.version + 1 - ended.count("Completed"), nights.version + 1))
    assert all(nights.decided(version).decision.against for version in versions)
    rows = json.loads(project.run("zk0", "model", "show", str(versions[-1]), "--json").stdout)
    assert rows["version"] == versions[-1]
