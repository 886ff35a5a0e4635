"""`zk0 train` on small recordings: trained, gone on with, refused; real stages, tracking and LeRobot's own command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from so100_recordings import as_lerobot, files_of, motor_steps, write_v3

from zk0.files import digest_file, read_json


@dataclass(frozen=True)
class Home:
    """An owner's folder: no clone, only what `zk0` itself leaves there."""

    root: Path

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "zk0", *words]

    def zk0(self, *words: str, fails: bool = False) -> str:
        """Run a command, which must succeed, or must not; gives what it printed."""
        done = subprocess.run(
            self.command(*words),
            cwd=self.root,
            env=os.environ | {"COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=400,
            check=False,
        )
        assert bool(done.returncode) == fails, done.stdout[-4000:]
        assert "Traceback" not in done.stdout
        return done.stdout


TRAIN = ("train", "--base", "random:nano", "--device", "cpu", "--batch", "4", "--steps", "6", "--saves", "3")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, recorded: Path) -> Iterator[tuple[Home, str]]:
    """A training of three rounds of two steps on the simulated arm's recording, and what it said. Read only."""
    home = Home(tmp_path_factory.mktemp("owner"))
    shutil.copytree(recorded, home.root / "cubes")
    yield home, home.zk0(*TRAIN, "--data", "local:cubes")


def test_all_steps_are_told_and_the_model_is_named(trained: tuple[Home, str]) -> None:
    home, said = trained
    told = ("1 of 9: environment setup", "2 of 9: model loading", "3 of 9: dataset preparation")
    told += (
        "4 of 9: training configuration",
        "5 to 8 of 9: local training, parameter extraction",
        "9 of 9: validation",
    )
    assert [said.index(one) for one in told] == sorted(said.index(one) for one in told)
    assert "6 steps of 4 frames" in said and "round 3 of 3" in said
    assert f"trained model: {home.root / 'trainings' / 'cubes' / 'checkpoints' / 'best'}" in said


def test_nothing_is_written_beside_the_trainings_folder(trained: tuple[Home, str], recorded: Path) -> None:
    home, _ = trained
    assert {path.name for path in home.root.iterdir()} == {"cubes", "trainings", "mlflow.db", "mlruns", ".cache"}
    assert files_of(home.root / "cubes") == files_of(recorded)
    assert (home.root / "trainings" / "cubes" / ".cache").resolve().parent == home.root


def test_rounds_tell_of_extraction_and_communication(trained: tuple[Home, str]) -> None:
    home, _ = trained
    lines = (home.root / "trainings/cubes/results/federation/events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    for number in (1, 2, 3):
        said = [event["event"] for event in events if event["round"] == number]
        assert said.index("round-start") < said.index("local-training") < said.index("extract") < said.index("train")
        assert "save" in said
    rows = [json.loads(line) for line in (home.root / "trainings/cubes/results/federation/rounds.jsonl").open()]
    extracted = [event for event in events if event["event"] == "extract"]
    assert [event["bytes"] for event in extracted] == [row["bytes_up"] for row in rows[1:]]


def test_the_run_is_in_the_projects_mlflow(trained: tuple[Home, str]) -> None:
    from zk0.tracking.lineage import describe_version, list_runs
    from zk0.tracking.registry import champion

    home, _ = trained
    (row,) = list_runs(home.root, "zk0-train")
    run = read_json(home.root / "trainings/cubes/results/federation/run.json")
    assert row["run"] == run["run"] and row["versions"] == ["cubes/1 (challenger)"]
    described = describe_version(home.root, "cubes", 1)
    assert described["digest"] == run["checkpoints"]["best"]["digest"]
    assert described["metrics"]["eval/action_error_deg"] > 0
    weights = home.root / described["checkpoint"] / "model.safetensors"
    assert digest_file(weights) == digest_file(home.root / "trainings/cubes/checkpoints/best/model.safetensors")
    assert champion(home.root, "cubes") is None  # nobody asked for it


def test_a_second_time_changes_nothing(trained: tuple[Home, str], tmp_path: Path) -> None:
    from zk0.tracking.lineage import list_runs

    home = Home(tmp_path / "owner")
    shutil.copytree(trained[0].root, home.root, symlinks=True)
    shutil.rmtree(home.root / "trainings" / "cubes" / ".cache", ignore_errors=True)
    folder = home.root / "trainings" / "cubes"
    (folder / "params.yaml").write_text(
        (folder / "params.yaml").read_text().replace(str(trained[0].root), str(home.root))
    )
    before = read_json(folder / "results/federation/run.json")

    said = home.zk0("train", "--name", "cubes")

    assert "complete before" in said and "already is MLflow run" in said and "evaluating" not in said
    assert read_json(folder / "results/federation/run.json") == before
    assert len(list_runs(home.root, "zk0-train")) == 1


def test_a_trained_version_is_a_start_for_the_next(trained: tuple[Home, str], tmp_path: Path) -> None:
    from zk0.single_site import Request, open_training

    shutil.copytree(trained[0].root, tmp_path / "owner", symlinks=True)

    params = open_training(tmp_path / "owner", Request(data="cubes", name="again", base="mlflow:cubes/1")).params

    weights = Path(params.policy.base) / "model.safetensors"
    assert weights.is_relative_to(tmp_path / "owner" / "mlruns")
    assert digest_file(weights) == digest_file(trained[0].root / "trainings/cubes/checkpoints/best/model.safetensors")
    assert params.training.learning_rate == 5e-4  # a small policy


def test_lerobot_evaluates_the_trained_checkpoint(trained: tuple[Home, str], tmp_path: Path) -> None:
    shutil.copytree(trained[0].root / "trainings/cubes/checkpoints/best", tmp_path / "elsewhere")
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"} | {"HF_HUB_OFFLINE": "1"}
    command = [str(Path(sys.executable).with_name("lerobot-eval")), "--policy.path=elsewhere", "--policy.device=cpu"]
    command += ["--env.type=zk0_so101", "--env.task=public-touch", "--env.episode_length=4", "--seed=100000"]
    command += ["--eval.n_episodes=1", "--eval.batch_size=1", "--eval.use_async_envs=false", "--output_dir=evaluated"]

    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, done.stderr[-4000:]
    assert read_json(tmp_path / "evaluated" / "eval_info.json")["overall"]["n_episodes"] == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_training_that_was_stopped_ends_at_the_same_model(
    trained: tuple[Home, str], tmp_path: Path, how: signal.Signals
) -> None:
    home = Home(tmp_path)
    (tmp_path / "cubes").symlink_to(trained[0].root / "cubes")
    events = tmp_path / "trainings/cubes/results/federation/events.jsonl"
    process = subprocess.Popen(
        home.command(*TRAIN, "--data", "local:cubes"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A background job starts with SIGINT ignored, and so would this child of one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 200
    while not (events.exists() and all(said in events.read_text() for said in ("round 1 saved", "round 2 of 3"))):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0][-2000:]
        time.sleep(0.02)
    process.send_signal(how)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    if how == signal.SIGINT:
        assert "`zk0 train --name cubes` goes on from the last one" in output and "Traceback" not in output

    resumed = home.zk0("train", "--name", "cubes")

    assert "continuing after round" in resumed
    assert read_json(tmp_path / "trainings/cubes/results/federation/run.json")["resumed_at_rounds"]
    for name in ("best", "last"):
        ours = tmp_path / "trainings/cubes/checkpoints" / name / "model.safetensors"
        undisturbed = trained[0].root / "trainings/cubes/checkpoints" / name / "model.safetensors"
        assert digest_file(ours) == digest_file(undisturbed)


def test_data_that_is_not_fit_is_refused_with_nothing_left(tmp_path: Path) -> None:
    """Absent; of one episode; normalised and not said so; with a camera that the policy does not know."""
    home = Home(tmp_path)
    steps = [motor_steps(14, seed) for seed in range(2)]
    write_v3(tmp_path / "one", [as_lerobot(steps[0], "degrees")])
    write_v3(tmp_path / "normalised", [as_lerobot(one, "range_m100_100") for one in steps])
    before = {path.name for path in tmp_path.iterdir()}

    absent = home.zk0(*TRAIN, "--data", "local:absent", fails=True)
    one = home.zk0(*TRAIN, "--data", "one", fails=True)
    normalised = home.zk0(*TRAIN, "--data", "normalised", fails=True)

    assert "absent does not exist; expected the folder of a LeRobot dataset" in absent
    assert "record at least two" in one
    assert "is certainly normalised" in normalised and "As options of `zk0 train`:" in normalised
    assert "data.conventions: --convention" in normalised
    assert {path.name for path in tmp_path.iterdir()} == before | {".cache"}


def test_a_camera_is_mapped_by_the_option_that_the_refusal_names(tmp_path: Path) -> None:
    home = Home(tmp_path)
    states = [as_lerobot(motor_steps(14, seed), "degrees") for seed in range(2)]
    write_v3(tmp_path / "cups", states, cameras={"front": (96, 96)}, fps=30)
    words = ("train", "--base", "random:nano", "--device", "cpu", "--batch", "2", "--steps", "1", "--data", "cups")

    refused = home.zk0(*words, fails=True)
    said = home.zk0(*words, "--camera", "front=top")

    assert "cameras observation.images.front, which the policy does not know" in refused
    assert "--camera top=POLICY'S" in refused
    manifest = read_json(tmp_path / "trainings/cups/data/manifests/cups.json")
    assert manifest["fps"] == 30 and manifest["camera_sources"] == {
        "observation.images.top": "observation.images.front"
    }
    assert "trained model:" in said
    loss = read_json(tmp_path / "trainings/cups/results/federation/run.json")["best_held_out_loss"]
    assert np.isfinite(loss)


def test_a_step_alone_and_a_step_that_is_none(tmp_path: Path) -> None:
    home = Home(tmp_path)

    assert "did you mean 'model loading'" in home.zk0("train", "--data", "x", "--only", "model-loading", fails=True)
    said = home.zk0("train", "--data", "x", "--only", "model update", fails=True)
    assert "'model update' is a part of every round, which --only 'local training' runs" in said
    assert not (tmp_path / "trainings").exists()
