"""What a run says of itself in MLflow: name, headline, champion or not, and the columns it is shown with."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.models import Model

from zk0.files import write_json
from zk0.models.nights import Night, nights_markdown
from zk0.params import Params, PromotionParams
from zk0.tracking.lineage import list_runs
from zk0.tracking.metric_names import telling_params
from zk0.tracking.project import FlowRunInfo, track
from zk0.tracking.promotion import demote, promote
from zk0.tracking.view import COLUMNS, TAGS

NAME = "zk0-smolvla"
REPO = Path(__file__).parents[2]


@pytest.fixture
def nights(tracked: Path, files: Any, spread: Callable[..., list[bool]]) -> Path:
    """After two nights: version 2 became the champion, version 3 did no better, and unsafely."""
    for day, share, safe in ((2, 0.5, True), (3, 0.52, False)):
        files.next_run(tracked, day)
        tasks = {task: (spread(0.1), spread(share)) for task in ("red-cube", "purple-cylinder")}
        found = files.evaluated(tracked, tasks, safe=safe)
        for model, rate in (("base", 0.1), ("global", share)):
            found["overall"][model] |= {"success_rate_seen": rate, "success_rate_unseen": rate}
        write_json(tracked / "results/evaluation.json", found)
        named = FlowRunInfo(f"flow-{day}", f"federate 2026-03-{day:02d} nightly from base")
        track(tracked, "zk0", NAME, named, promotion=PromotionParams())
    return tracked


def run_of(root: Path, version: int) -> Run:
    store = MlflowClient(f"sqlite:///{root}/mlflow.db")
    return store.get_run(str(store.get_model_version(NAME, str(version)).run_id))


def headline(root: Path, version: int) -> str:
    return str(run_of(root, version).data.tags["mlflow.note.content"].splitlines()[0].strip())


def test_the_first_line_says_what_came_of_it_and_what_was_decided(nights: Path) -> None:
    assert headline(nights, 1) == "not evaluated, held-out loss 0.4 (base 0.9); not decided whether it becomes champion"
    assert headline(nights, 2) == (
        "success 50% on the sites' tasks (base 10%), 50% on unseen tasks (base 10%); champion"
    )
    refused = run_of(nights, 3).data.tags["mlflow.note.content"].splitlines()
    assert "; not champion: the safety check failed: joint speed, rollouts, and " in refused[0]
    assert refused[1:3] == ["version 3 of zk0-smolvla  ", "action error 3.50 degrees (base 9.00)  "]
    assert refused[3].strip() == "safety check failed"
    assert refused[4].startswith("not champion: not shown to be better than version 2")
    assert [run_of(nights, number).data.tags["zk0.champion"] for number in (1, 2, 3)] == ["not decided", "yes", "no"]


def test_champions_that_come_and_go_are_told_of_in_both_runs(nights: Path) -> None:
    promote(nights, NAME, 3, PromotionParams(), force=True)
    assert [run_of(nights, number).data.tags["zk0.champion"] for number in (2, 3)] == ["was", "yes"]
    assert headline(nights, 2).endswith("; champion before") and headline(nights, 3).endswith("; champion")

    demote(nights, NAME)
    assert [run_of(nights, number).data.tags["zk0.champion"] for number in (2, 3)] == ["yes", "was"]
    assert headline(nights, 2).endswith("; champion")


def test_an_evaluation_that_comes_later_renames_the_run_and_its_sites(tracked: Path, files: Any) -> None:
    assert run_of(tracked, 1).info.run_name == "fedavg-01234567"
    files.later(tracked)

    result = track(tracked, "zk0", NAME)

    store = MlflowClient(f"sqlite:///{tracked}/mlflow.db")
    run = store.get_run(result.run_id)
    children = store.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{result.run_id}'")
    assert run.info.run_name == "fedavg-01234567 75%"
    assert {child.info.run_name for child in children} == {
        "fedavg-01234567 75%/red-cube",
        "fedavg-01234567 75%/green-ball",
    }


def test_the_columns_are_those_of_a_run(nights: Path) -> None:
    store = MlflowClient(f"sqlite:///{nights}/mlflow.db")
    experiment = store.get_experiment_by_name("zk0")
    assert experiment is not None
    assert experiment.tags == TAGS
    assert json.loads(TAGS["mlflow.sharedViewState.zk0"])["selectedColumns"] == list(COLUMNS)
    data = run_of(nights, 3).data
    known = {"metrics": data.metrics, "params": data.params, "tags": data.tags}
    for column in COLUMNS:
        kind, _, name = column.partition(".")
        assert name.strip("`") in known[kind], column


def test_an_older_store_gets_the_view(tracked: Path) -> None:
    store = MlflowClient(f"sqlite:///{tracked}/mlflow.db")
    for tag in TAGS:
        store.delete_experiment_tag("1", tag)

    track(tracked, "zk0", NAME)

    assert store.get_experiment("1").tags == TAGS


def test_a_version_has_a_signature_an_example_and_ways_to_its_videos(nights: Path, monkeypatch: Any) -> None:
    store = MlflowClient(f"sqlite:///{nights}/mlflow.db")
    version = store.get_model_version_by_alias(NAME, "champion")
    run = run_of(nights, 2)
    pages = f"#/experiments/{run.info.experiment_id}"
    assert f"[videos, report and params]({pages}/runs/{run.info.run_id}/artifacts)" in str(version.description)
    folder = nights / store.get_logged_model(str(version.source).removeprefix("models:/")).artifact_location
    described = Model.load(str(folder))
    assert described.signature is not None
    names = ["observation.state", "observation.images.top", "observation.images.wrist", "task"]
    assert described.signature.inputs.input_names() == names
    example = described.load_input_example(str(folder))
    assert example["task"] == "touch the red cube"
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: f"sqlite:///{nights}/mlflow.db")
    chunk = mlflow.pyfunc.load_model(str(folder)).predict(example)
    assert chunk.shape == (8, 6) and np.isfinite(chunk).all()


def test_videos_are_kept_with_the_run(tracked: Path, files: Any) -> None:
    files.later(tracked)
    film = {"task": "red-cube", "model": "global", "seed": 1, "success": True, "file": "results/rollouts/a.mp4"}
    place = tracked / "results/evaluation.json"
    place.write_text(
        json.dumps(json.loads(place.read_text()) | {"videos": [film, {**film, "file": "results/gone.mp4"}]})
    )
    (tracked / "results/rollouts").mkdir()
    (tracked / film["file"]).write_bytes(b"a film")

    result = track(tracked, "zk0", NAME)

    assert "videos (1)" in result.added
    kept = tracked / run_of(tracked, 1).info.artifact_uri / "videos"
    assert [path.name for path in kept.iterdir()] == ["a.mp4"]
    assert track(tracked, "zk0", NAME).added == ()


@pytest.mark.parametrize("profile", ["demo", "quality", "so100-hub"])
def test_params_that_differ_and_those_that_everybody_asks_for(profile: str) -> None:
    params = Params.model_validate(yaml.safe_load((REPO / f"profiles/{profile}.yaml").read_text()))

    told = telling_params(params.model_dump(mode="json"))

    asked = {"seed", "policy.base", "training.local_steps", "federation.strategy", "federation.rounds"}
    assert asked <= set(told)
    assert len(told) < 40 and not any(name.startswith(("study.", "data.sites.")) for name in told)
    changed = telling_params(params.model_copy(update={"threads": 7}).model_dump(mode="json"))
    assert changed == {**told, "threads": "7"}


def test_nights_at_a_glance(nights: Path) -> None:
    table = nights_markdown(list_runs(nights, "zk0")).splitlines()

    assert [line.split(" | ")[0] for line in table[2:]] == ["| 2026-03-03 10:00", "| 2026-03-02 10:00"]
    assert " | no | " in table[2] and "the safety check failed: joint speed, rollouts" in table[2]
    assert "zk0-smolvla/2 (champion) | yes | " in table[3] and table[3].endswith(" | yes | 0 | 30 |  |")
    assert nights_markdown([]) == "There has been no night yet."


def test_nights_without_a_model_are_among_them(nights: Path) -> None:
    quiet = Night(datetime(2026, 3, 4, 3, tzinfo=timezone(timedelta(hours=1))), "Unchanged", "nothing was new", 41.2)
    failed = Night(datetime(2026, 3, 2, 23, tzinfo=UTC), "Failed", "prepare: disk | full", 9.0)

    table = nights_markdown(list_runs(nights, "zk0"), [quiet, failed]).splitlines()

    began = [line.split(" | ")[0].removeprefix("| ") for line in table[2:]]
    assert began == ["2026-03-04 02:00", "2026-03-03 10:00", "2026-03-02 23:00", "2026-03-02 10:00"]
    assert table[2].endswith(" | Unchanged |  |  |  |  |  | 41 | nothing was new |")
    assert "; this deployment goes on from the last complete round |" in table[4]
    assert {line.replace("\\|", "").count("|") for line in table} == {10}
