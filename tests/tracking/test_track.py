"""Projecting a run into MLflow: once, again, in parts, after a failure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from mlflow import MlflowClient

from zk0.records.files import RecordError
from zk0.tracking import TrackingError
from zk0.tracking.experiments import Kept
from zk0.tracking.project import FlowRunInfo, track

Content = Callable[[Path], dict[str, str]]


def client(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root}/mlflow.db")


def parents(root: Path) -> list[Any]:
    store = client(root)
    experiment = store.get_experiment_by_name("zk0")
    assert experiment is not None
    found = store.search_runs([experiment.experiment_id])
    return [run for run in found if "mlflow.parentRunId" not in run.data.tags]


def test_a_run_is_projected_whole(trained: Path, files: Any) -> None:
    files.later(trained)

    result = track(trained, "zk0", "zk0-smolvla", FlowRunInfo("flow-1", "bold-otter"), Kept("nightly-1"))

    assert (result.created, result.model_version, result.skipped) == (True, 1, ())
    store = client(trained)
    run = store.get_run(result.run_id)
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 1772359200000, 1772359230000)
    assert run.info.run_name == "fedavg-01234567 75%"
    assert run.data.tags["mlflow.note.content"].splitlines() == [
        "success 75% on the sites' tasks (base 0%); not decided whether it becomes champion  ",
        "version 1 of zk0-smolvla  ",
        "action error 3.50 degrees (base 9.00)  ",
        "safety check passed",
    ]
    assert run.data.params == {
        "seed": "1",
        "policy.base": "models/nano-base",
        "federation.strategy": "fedavg",
        "federation.rounds": "3",
    }
    kept = yaml.safe_load((trained / run.info.artifact_uri / "params.yaml").read_text())
    assert kept["data"]["sites"]["red-cube"] == "sim:touch-red-cube"
    assert run.data.tags["zk0.run"] == "0123456789abcdef"
    assert run.data.tags["mlflow.source.git.commit"] == "4f2a91c"
    assert run.data.tags["prefect.flow_run_id"] == "flow-1"
    assert run.data.tags["zk0.dvc_experiment"] == "nightly-1"
    history = store.get_metric_history(result.run_id, "by_round/held_out_loss")
    assert [(point.step, point.value) for point in history] == [(0, 0.9), (1, 0.6), (2, 0.4), (3, 0.5)]
    assert [point.step for point in store.get_metric_history(result.run_id, "by_round/train_loss")] == [1, 2, 3]
    for name, values in {
        "system/process_cpu_percentage": [50.0] * 3,
        "system/process_memory_megabytes": [pytest.approx(900.0)] * 3,
    }.items():  # by the prefix MLflow finds what it shows as system metrics
        points = store.get_metric_history(result.run_id, name)
        assert ([point.step for point in points], [point.value for point in points]) == ([1, 2, 3], values)
    expected = {
        "eval/action_error_deg": 3.5,
        "eval/base/action_error_deg": 9.0,
        "eval/success_rate_seen": 0.75,
        "eval/base/success_rate_seen": 0.0,
        "eval/task/red-cube/success_rate": 0.75,
        "eval/base/task/red-cube/success_rate": 0.0,
        "eval/final_held_out_loss": 0.41,
        "eval/best_held_out_loss": 0.4,
        "safety/passed": 1.0,
        "safety/joint-ranges-held-out": 0.0,
        "comm/total_bytes_up": 6000.0,
        "train/sites": 2.0,
        "machine/optimiser-step/s": 0.11,
        "machine/optimiser-step/p50_s": 0.1,
    }
    assert {name: run.data.metrics.get(name) for name in expected} == expected
    assert "eval/success_rate_unseen" not in run.data.metrics


def test_sites_are_children_with_their_own_rounds_and_data(tracked: Path) -> None:
    store = client(tracked)
    (parent,) = parents(tracked)
    children = store.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", order_by=["start_time"]
    )

    name = parent.info.run_name
    assert sorted(child.info.run_name for child in children) == [f"{name}/green-ball", f"{name}/red-cube"]
    assert {child.info.status for child in children} == {"FINISHED"}
    history = store.get_metric_history(children[0].info.run_id, "by_round/held_out_loss")
    assert [(point.step, point.value) for point in history] == [(0, 0.9), (1, 0.6), (2, 0.4), (3, 0.5)]
    (given,) = next(child for child in children if child.info.run_name == f"{name}/red-cube").inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("red-cube", "red-cube-digest")
    source = mlflow.data.get_source(given)
    told = {"source": "sim:touch-red-cube", "revision": "5d41", "root": "data/recordings/red-cube"}
    assert source.to_dict() == {**told, "digest": "red-cube-digest"}
    (tracked / "data/recordings/red-cube").mkdir(parents=True)
    assert source.load() == Path("data/recordings/red-cube")


def test_every_round_has_a_model_record_with_its_metrics(tracked: Path) -> None:
    (parent,) = parents(tracked)
    models = {m.name: m for m in client(tracked).search_logged_models([parent.info.experiment_id])}

    assert sorted(models) == ["best", "last", "round-0001", "round-0002", "round-0003"]
    assert models["round-0002"].params == {"round": "2", "digest": "d2", "best": "true"}
    assert {m.key: m.value for m in models["round-0002"].metrics}["by_round/held_out_loss"] == 0.4
    assert models["best"].tags["zk0.round"] == "2"
    assert {m.key: m.value for m in models["best"].metrics}["eval/best_held_out_loss"] == 0.4
    assert {output.model_id for output in parent.outputs.model_outputs} == {m.model_id for m in models.values()}


def test_the_last_model_is_kept_once_when_it_is_the_best(trained: Path, files: Any) -> None:
    shutil.rmtree(trained / "checkpoints/last")
    shutil.copytree(trained / "checkpoints/best", trained / "checkpoints/last")
    files.run(trained, best_round=3)

    track(trained, "zk0", "zk0-smolvla")

    models = client(trained).search_logged_models([parents(trained)[0].info.experiment_id])
    assert "last" not in {model.name for model in models}


def test_again_changes_nothing(tracked: Path, files: Any, content: Content) -> None:
    files.later(tracked)
    first = track(tracked, "zk0", "zk0-smolvla", FlowRunInfo("flow-1"), Kept("nightly-1"))
    before = content(tracked)

    again = track(tracked, "zk0", "zk0-smolvla", FlowRunInfo("flow-2"), Kept("nightly-1"))

    assert (again.run_id, again.model_version, again.created, again.added) == (first.run_id, 1, False, ())
    assert content(tracked) == before


def test_again_without_checkpoints_changes_nothing(tracked: Path, content: Content) -> None:
    shutil.rmtree(tracked / "checkpoints")
    before = content(tracked)

    assert track(tracked, "zk0", "zk0-smolvla").added == ()
    assert content(tracked) == before


def test_what_comes_later_is_added_and_nothing_else(tracked: Path, files: Any) -> None:
    (before,) = parents(tracked)
    files.later(tracked)

    result = track(tracked, "zk0", "zk0-smolvla")

    (after,) = parents(tracked)
    assert (result.run_id, result.created) == (before.info.run_id, False)
    assert result.added[1:] == (
        "evaluation.json",
        "benchmark.json",
        "report.html",
        "run.svg",
        "model card",
    )
    new = set(after.data.metrics) - set(before.data.metrics)
    assert {name.split("/")[0] for name in new} == {"by_round", "eval", "safety", "machine"}
    store = client(tracked)
    once = {name for name in new if not name.startswith("by_round/")}
    assert {len(store.get_metric_history(result.run_id, name)) for name in once} == {1}
    # As bars, not lines: MLflow draws a line from step 1 on.
    assert {store.get_metric_history(result.run_id, name)[0].step for name in once} == {0}
    judged = store.get_metric_history(result.run_id, "by_round/success_rate_seen")
    assert [(point.step, point.value) for point in judged] == [(0, 0.0), (2, 0.75)]
    assert len(store.get_metric_history(result.run_id, "by_round/held_out_loss")) == 4
    plot = (tracked / after.info.artifact_uri / "run.svg").read_text()
    assert all(word in plot for word in ("red-cube", "green-ball", "held-out loss", "success rate", "best round"))
    report = tracked / after.info.artifact_uri / "report.html"
    assert report.read_text() == "<html>the report</html>\n"
    version = store.get_model_version("zk0-smolvla", "1")
    assert "success on seen tasks 75%" in version.description


def test_what_was_gained_over_the_base_is_a_metric(
    tracked: Path, files: Any, spread: Callable[..., list[bool]]
) -> None:
    files.evaluated(tracked, {task: (spread(0.1), spread(0.5)) for task in ("red-cube", "purple-cylinder")})

    track(tracked, "zk0", "zk0-smolvla")

    metrics = parents(tracked)[0].data.metrics
    assert metrics["eval/gain/success_rate_seen"] == pytest.approx(0.4)
    assert metrics["eval/gain/success_rate_unseen"] == pytest.approx(0.4)
    assert 0 < metrics["eval/gain/success_rate_seen_at_least"] < 0.4
    assert metrics["eval/gain/action_error_deg_seen"] == pytest.approx(8.8333 - 3, abs=1e-3)


def test_a_new_evaluation_of_the_same_model_replaces_the_figures(tracked: Path, files: Any) -> None:
    files.later(tracked)
    track(tracked, "zk0", "zk0-smolvla")
    files.later(tracked, success_rate=0.5)

    result = track(tracked, "zk0", "zk0-smolvla")

    assert parents(tracked)[0].data.metrics["eval/success_rate_seen"] == 0.5
    assert len(client(tracked).get_metric_history(result.run_id, "eval/action_error_deg")) == 1


def test_results_of_another_run_are_left_out_with_a_reason(tracked: Path, files: Any) -> None:
    files.later(tracked)
    (tracked / "checkpoints/best/note.txt").write_text("trained again")
    files.run(tracked, started="2026-03-02T10:00:00+00:00", ended="2026-03-02T10:00:30+00:00")

    result = track(tracked, "zk0", "zk0-smolvla")

    assert [line.split(" ")[0] for line in result.skipped] == [
        "results/evaluation.json",
        "results/report.html",
        "results/benchmark.json",
    ]
    assert "eval/success_rate_seen" not in client(tracked).get_run(result.run_id).data.metrics


def test_two_runs_are_two_versions_and_the_newer_is_challenger(tracked: Path, files: Any, content: Content) -> None:
    first = (tracked / "results/federation/run.json").read_text()
    files.run(tracked, started="2026-03-02T10:00:00+00:00", ended="2026-03-02T10:00:30+00:00")

    result = track(tracked, "zk0", "zk0-smolvla")

    assert (result.created, result.model_version) == (True, 2)
    store = client(tracked)
    assert store.get_model_version_by_alias("zk0-smolvla", "challenger").version == 2
    assert len(parents(tracked)) == 2
    # Back at the first run, as after `dvc checkout`: it is recognised, and the newest stays challenger.
    before = content(tracked)
    (tracked / "results/federation/run.json").write_text(first)
    assert track(tracked, "zk0", "zk0-smolvla").model_version == 1
    assert content(tracked) == before


@pytest.mark.parametrize(
    "broken",
    ["set_terminated", "log_model_artifacts", "create_model_version", "set_registered_model_alias", "log_outputs"],
)
def test_a_projection_cut_off_is_completed(
    trained: Path, monkeypatch: pytest.MonkeyPatch, broken: str, content: Content
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, broken, fail)
        with pytest.raises(ConnectionError):
            track(trained, "zk0", "zk0-smolvla")

    result = track(trained, "zk0", "zk0-smolvla")

    (parent,) = parents(trained)
    store = client(trained)
    assert parent.info.status == "FINISHED"
    assert len(store.search_runs([parent.info.experiment_id])) == 3
    assert len(store.get_metric_history(result.run_id, "by_round/held_out_loss")) == 4
    models = store.search_logged_models([parent.info.experiment_id])
    assert sorted(m.name for m in models) == ["best", "last", "round-0001", "round-0002", "round-0003"]
    assert {str(m.status) for m in models} == {"READY"}
    assert len(parent.outputs.model_outputs) == 5
    assert len(store.search_model_versions("name = 'zk0-smolvla'")) == 1
    # A registration that was taken back leaves its number unused.
    assert store.get_model_version_by_alias("zk0-smolvla", "challenger").version == result.model_version
    before = content(trained)
    assert track(trained, "zk0", "zk0-smolvla").added == ()
    assert content(trained) == before


def test_locations_are_relative_so_that_a_project_may_move(tracked: Path) -> None:
    assert str(tracked) not in "".join(run.info.artifact_uri for run in parents(tracked))
    assert [file.path for file in client(tracked).list_artifacts(parents(tracked)[0].info.run_id)] == [
        "params.yaml",
        "results",
        "run.svg",
    ]


@pytest.mark.parametrize(
    ("missing", "stage"),
    [("results/federation/run.json", "federate"), ("results/federation/rounds.jsonl", "federate")],
)
def test_a_missing_file_is_named_with_the_stage_that_makes_it(trained: Path, missing: str, stage: str) -> None:
    (trained / missing).unlink()

    with pytest.raises(RecordError, match=f"{missing} is missing; `zk0 {stage}` makes it"):
        track(trained, "zk0", "zk0-smolvla")


def test_a_partial_file_is_named_with_what_it_lacks(trained: Path) -> None:
    (trained / "results/evaluation.json").write_text(json.dumps({"models": {}}))
    with pytest.raises(RecordError, match=r"evaluation.json lacks 'models.base', .*; run `zk0 evaluate`"):
        track(trained, "zk0", "zk0-smolvla")

    (trained / "results/evaluation.json").write_text("{")
    with pytest.raises(RecordError, match=r"evaluation.json is not valid JSON.*run `zk0 evaluate` again"):
        track(trained, "zk0", "zk0-smolvla")


def test_rounds_that_do_not_fit_the_run_are_refused(trained: Path) -> None:
    file = trained / "results/federation/rounds.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:2]))
    with pytest.raises(TrackingError, match=r"holds rounds \[0, 1\], but .* rounds 0 to 3"):
        track(trained, "zk0", "zk0-smolvla")

    file.write_text("\n".join([*lines[:3], lines[3][:40]]))
    with pytest.raises(RecordError, match=r"rounds\.jsonl, line 4 is not valid JSON: .*; run `zk0 federate` again"):
        track(trained, "zk0", "zk0-smolvla")


def test_a_checkpoint_of_another_run_is_refused_before_anything_is_written(trained: Path, content: Content) -> None:
    (trained / "checkpoints/best/model.safetensors").write_bytes(b"other weights")

    with pytest.raises(TrackingError, match=r"checkpoints/best has digest .* different runs"):
        track(trained, "zk0", "zk0-smolvla")

    store = client(trained)
    experiment = store.get_experiment_by_name("zk0")
    assert experiment is not None
    assert store.search_runs([experiment.experiment_id]) == []


def test_a_deleted_experiment_is_named(tracked: Path) -> None:
    client(tracked).delete_experiment(parents(tracked)[0].info.experiment_id)

    with pytest.raises(TrackingError, match="'zk0' was deleted; `mlflow experiments restore -x 1`"):
        track(tracked, "zk0", "zk0-smolvla")


def test_a_leftover_of_the_file_store_is_named(tracked: Path) -> None:
    (tracked / "mlruns/1/meta.yaml").write_text("")

    with pytest.raises(TrackingError, match=r"mlruns/1/meta.yaml belongs to an older kind"):
        track(tracked, "zk0", "zk0-smolvla")


def test_a_database_that_is_none_is_named(trained: Path) -> None:
    (trained / "mlflow.db").write_text("not a database, but long enough")

    with pytest.raises(TrackingError, match=r"mlflow.db is no SQLite database; move it away"):
        track(trained, "zk0", "zk0-smolvla")
