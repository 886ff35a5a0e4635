"""`dvc repro` runs everything, then nothing but validate."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import Project

STAGES = ("prepare", "federate", "evaluate", "benchmark", "report", "track")


def read(project: Project, name: str) -> dict:  # type: ignore[type-arg]
    return json.loads((project.root / name).read_text())


def test_leaves_every_result(finished: Project) -> None:
    run = read(finished, "results/federation/run.json")
    rounds = [json.loads(line) for line in (finished.root / "results/federation/rounds.jsonl").read_text().splitlines()]
    evaluation = read(finished, "results/evaluation.json")

    assert set(run["sites"]) == {"red", "disc"}
    assert [row["round"] for row in rounds] == [0, 1, 2]
    assert set(rounds[1]["sites"]) == {"red", "disc"}
    assert run["base"]["digest"] == evaluation["models"]["base"]["digest"]
    assert run["checkpoints"]["best"]["digest"] == evaluation["models"]["global"]["digest"]
    assert evaluation["tasks"]["purple"]["role"] == "unseen"
    assert evaluation["tasks"]["purple"]["global"]["rollouts"] == 2
    assert all((finished.root / video["file"]).stat().st_size > 1000 for video in evaluation["videos"])
    assert (finished.root / "results/report.html").stat().st_size > 100_000
    assert read(finished, "results/tracking.json")["model_version"] == 1


def test_only_trainable_tensors_travel(finished: Project) -> None:
    run = read(finished, "results/federation/run.json")
    row = json.loads((finished.root / "results/federation/rounds.jsonl").read_text().splitlines()[1])
    trainable = run["policy"]["trainable_bytes"]

    assert run["policy"]["trainable_parameters"] < run["policy"]["parameters"] / 2
    assert trainable <= row["sites"]["red"]["bytes_up"] < 1.1 * trainable


def test_again_runs_nothing_but_validate(finished: Project) -> None:
    output = finished.run("dvc", "repro").stdout

    assert "Running stage 'validate'" in output
    for stage in STAGES:
        assert f"Stage '{stage}' didn't change, skipping" in output


def test_track_twice_changes_nothing(finished: Project) -> None:
    before = (finished.root / "mlflow.db").read_bytes()

    output = finished.run("zk0", "track").stdout

    assert "already is MLflow run" in output
    assert (finished.root / "mlflow.db").read_bytes() == before


def test_model_version_leads_to_its_data(finished: Project) -> None:
    shown = json.loads(finished.run("zk0", "model", "show", "1", "--json").stdout)

    text = json.dumps(shown)
    for site in ("red", "disc"):
        assert read(finished, f"data/manifests/{site}.json")["digest"] in text


def test_checkpoint_loads_elsewhere(finished: Project, tmp_path: Path) -> None:
    import shutil

    moved = tmp_path / "moved"
    shutil.copytree(finished.root / "checkpoints/best", moved)
    code = (
        "import zk0.policy\n"
        "from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy\n"
        f"policy = SmolVLAPolicy.from_pretrained({str(moved)!r})\n"
        "print(sum(p.numel() for p in policy.parameters()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert int(done.stdout.split()[-1]) == read(finished, "results/federation/run.json")["policy"]["parameters"]


def test_changed_episode_count_is_noticed(finished: Project) -> None:
    params = finished.root / "params.yaml"
    before = params.read_text()
    try:
        finished.change_params(lambda p: p["data"].update(episodes=4))
        finished.run("zk0", "validate")
        status = finished.run("dvc", "status").stdout
    finally:
        params.write_text(before)
        finished.run("dvc", "repro")

    assert "prepare" in status


def test_metrics_diff_and_plots(finished: Project) -> None:
    metrics = json.loads(finished.run("dvc", "metrics", "show", "--json").stdout)
    finished.run("dvc", "metrics", "diff")
    finished.run("dvc", "plots", "show", "-o", ".cache/plots")

    assert metrics[""]["data"]["results/metrics.json"]["data"]["error_deg"] > 0
    assert "held_out_loss" in (finished.root / ".cache/plots/index.html").read_text()


@pytest.mark.parametrize("missing", ["results/federation/run.json"])
def test_report_names_what_is_missing(finished: Project, missing: str) -> None:
    path = finished.root / missing
    content = path.read_bytes()
    path.unlink()
    try:
        done = finished.attempt("zk0", "report")
    finally:
        path.write_bytes(content)

    assert done.returncode == 1
    assert "run.json" in done.stderr and "federate" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
