"""`zk0 train`: the commands of docs/train.md, as an owner types them, and LeRobot's own with what comes of them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import yaml
from docs_commands import documented, typed
from hub_server import lay_out_cache
from so100_recordings import as_lerobot, files_of, motor_steps, write_v3
from tests_support import REPO

from zk0.digests import digest_file
from zk0.errors import StageError
from zk0.files import read_json
from zk0.records.arm_command import rollout_command, way_to_the_arm
from zk0.records.files import read
from zk0.records.results import Evaluation
from zk0.records.run import Run
from zk0.so100 import JOINTS

PAGE = "train.md"
CAMERAS = tuple(f"observation.images.camera{number}" for number in (1, 2, 3))
FEW = " --steps 3 --saves 3 --batch 2"  # three rounds of one step
TRAINED = Path("trainings/cups")


@dataclass(frozen=True)
class Owner:
    """An owner's folder, the working directory: no clone, only recordings, and a Hub cache in place of a network.

    Attributes:
        root: The folder.
        hub: The cache, with a policy of the embedded size as what the Hub has as smolvla_base.
        recorded: Every file of the dataset ``cups``, as it was.
    """

    root: Path
    hub: Path
    recorded: dict[str, bytes]

    def environment(self) -> dict[str, str]:
        """For commands that run in processes of their own; LeRobot's set up rendering by themselves."""
        kept = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
        return kept | {"HF_HUB_CACHE": str(self.hub), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}

    def lerobot(self, line: str, cwd: Path, **environment: str) -> None:
        """Run one of LeRobot's commands, which must succeed."""
        program, *words = shlex.split(line)
        command = [str(Path(sys.executable).with_name(program)), *words]
        done = subprocess.run(
            command,
            cwd=cwd,
            env=self.environment() | environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    from huggingface_hub import constants

    from zk0.policy import embedded
    from zk0.policy.checkpoint import save_checkpoint, with_stats
    from zk0.policy.start import build_nano

    place = tmp_path_factory.mktemp("owner")
    embedded.write_vlm(place / "vlm")
    unit = {"mean": np.zeros(6), "std": np.ones(6)}
    policy = build_nano(place / "vlm", CAMERAS, seed=0)
    save_checkpoint(with_stats(policy, {"observation.state": unit, "action": unit}), place / "smolvla_base")
    lay_out_cache(place / "hub", "lerobot/smolvla_base", "model", place / "smolvla_base")
    states = [as_lerobot(motor_steps(14, seed), "degrees") for seed in range(3)]
    cups = write_v3(place / "home" / "cups", states, fps=30)
    owner = Owner(place / "home", place / "hub", files_of(cups))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(constants, "HF_HUB_CACHE", str(owner.hub))
        patched.setattr(constants, "HF_HUB_OFFLINE", True)
        patched.delenv("ZK0_BASE", raising=False)
        yield owner


@pytest.fixture(autouse=True)
def _at_home(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(owner.root)


@pytest.fixture(scope="module")
def trained(owner: Owner) -> str:
    """What the page's command for own recordings said, with fewer steps. What it left is read only."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(owner.root)
        return typed(documented(PAGE, "zk0 train --data local:cups") + FEW)


def test_all_steps_are_told_and_the_model_is_named(owner: Owner, trained: str) -> None:
    told = [
        "1 of 9: environment setup",
        "2 of 9: model loading",
        "3 of 9: dataset preparation",
        "4 of 9: training configuration",
        "5 to 8 of 9: local training, parameter extraction",
        "9 of 9: validation",
    ]
    assert [trained.index(one) for one in told] == sorted(trained.index(one) for one in told)
    assert "it knows cameras camera1, camera2, camera3" in trained
    assert "3 steps of 2 frames" in trained and "round 3 of 3" in trained
    assert f"trained model: {owner.root / TRAINED / 'checkpoints' / 'best'}" in trained
    loss = read_json(TRAINED / "results/federation/run.json")["best_held_out_loss"]
    assert np.isfinite(loss)


@pytest.mark.usefixtures("trained")
def test_the_cameras_are_those_that_the_options_name() -> None:
    manifest = read_json(TRAINED / "data/manifests/cups.json")
    assert manifest["fps"] == 30
    assert manifest["camera_sources"] == {CAMERAS[0]: "observation.images.top", CAMERAS[1]: "observation.images.wrist"}


@pytest.mark.usefixtures("trained")
def test_nothing_is_written_beside_the_trainings_folder(owner: Owner) -> None:
    assert {path.name for path in owner.root.iterdir()} == {"cups", "trainings", "mlflow.db", "mlruns", ".cache"}
    assert files_of(owner.root / "cups") == owner.recorded
    assert (TRAINED / ".cache").resolve().parent == owner.root


@pytest.mark.usefixtures("trained")
def test_rounds_tell_of_extraction_and_communication() -> None:
    lines = (TRAINED / "results/federation/events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    for number in (1, 2, 3):
        said = [event["event"] for event in events if event["round"] == number]
        assert said.index("round-start") < said.index("local-training") < said.index("extract") < said.index("train")
        assert "save" in said
    rows = [json.loads(line) for line in (TRAINED / "results/federation/rounds.jsonl").open()]
    extracted = [event for event in events if event["event"] == "extract"]
    assert [event["bytes"] for event in extracted] == [row["bytes_up"] for row in rows[1:]]


@pytest.mark.usefixtures("trained")
def test_the_run_is_in_the_projects_mlflow_and_promoted_when_told(owner: Owner) -> None:
    from zk0.tracking.lineage import describe_version, list_runs
    from zk0.tracking.registry import champion

    run = read_json(TRAINED / "results/federation/run.json")
    (row,) = (one for one in list_runs(owner.root, "zk0-train") if one["run"] == run["run"])
    assert row["versions"] == ["cups/1 (challenger)"]
    described = describe_version(owner.root, "cups", 1)
    assert described["digest"] == run["checkpoints"]["best"]["digest"]
    assert described["metrics"]["eval/action_error_deg"] > 0
    weights = owner.root / described["checkpoint"] / "model.safetensors"
    assert digest_file(weights) == digest_file(TRAINED / "checkpoints/best/model.safetensors")
    assert champion(owner.root, "cups") is None  # nobody asked for it

    typed(documented(PAGE, "zk0 promote") + " --force")  # three steps made nothing better

    assert champion(owner.root, "cups") == weights.parent


@pytest.mark.usefixtures("trained")
def test_a_second_time_changes_nothing(owner: Owner) -> None:
    from zk0.tracking.lineage import list_runs

    before, runs = files_of(TRAINED / "results/federation"), list_runs(owner.root, "zk0-train")

    said = typed(documented(PAGE, "zk0 train --name cups"))

    assert "complete before" in said and "already is MLflow run" in said and "evaluating" not in said
    assert files_of(TRAINED / "results/federation") == before
    assert list_runs(owner.root, "zk0-train") == runs


@pytest.mark.usefixtures("trained")
def test_a_trained_version_is_a_start_for_the_next(owner: Owner) -> None:
    from zk0.workspaces.defaults import Request
    from zk0.workspaces.folder import open_training

    again = open_training(owner.root, Request(data="cups", name="again", base="mlflow:cups/1"))

    weights = Path(again.params.policy.base) / "model.safetensors"
    assert weights.is_relative_to(owner.root / "mlruns")
    assert digest_file(weights) == digest_file(TRAINED / "checkpoints/best/model.safetensors")
    assert again.params.training.learning_rate == 5e-4  # a small policy
    shutil.rmtree(again.folder)


@pytest.mark.usefixtures("trained")
def test_the_page_has_the_command_for_an_arm_that_such_a_training_gives() -> None:
    """Which tests/tracking/test_card_on_an_arm.py types; numbers that another recording has are the page's."""
    line = documented(PAGE, "lerobot-rollout")
    limits = yaml.safe_load(line.partition("--robot.max_relative_target='")[2].partition("'")[0])
    evaluation, run = read(TRAINED, Evaluation), read(TRAINED, Run)
    judged = evaluation.model_copy(update={"max_relative_target": limits})

    given = rollout_command(run, judged)

    assert list(evaluation.max_relative_target or ()) == list(limits) == list(JOINTS)
    assert given is not None
    given = given.replace("width: 32, height: 32", "width: 640, height: 480").replace("\\\n", "")
    assert shlex.split(given) == shlex.split(line)
    assert f"lerobot[smolvla,dataset,feetech]=={version('lerobot')}" in documented(PAGE, "pip install")


def test_a_training_ends_with_the_way_to_the_arm_or_why_there_is_none(owner: Owner, trained: str) -> None:
    assert way_to_the_arm(read(TRAINED, Run), read(TRAINED, Evaluation)) in trained


@pytest.fixture(scope="module")
def simulated(owner: Owner) -> Path:
    """The folder of the training that the page begins with, its params edited to be smaller, as the page tells how."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(owner.root)
        (owner.root / "models").symlink_to(REPO / "models")
        line = documented(PAGE, "zk0 train --data sim:")
        typed(f"{line} --only 'environment setup'")
        (owner.root / "models").unlink()
        folder = owner.root / "trainings/push-red-cube-left"
        params = yaml.safe_load((folder / "params.yaml").read_text())
        assert params["federation"]["rounds"] * params["training"]["local_steps"] == int(line.split()[-1])
        params["data"] |= {"episodes": 2, "held_out": 0.5}
        params["training"] |= {"local_steps": 1, "batch": 2, "warmup_steps": 0}
        params["federation"]["rounds"] = 1
        params["evaluation"] |= {"rollouts": 1, "videos": 0, "max_steps": 4, "loss_draws": 1}
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        typed("zk0 train --name push-red-cube-left")
    return folder


def test_edited_params_are_what_is_trained(simulated: Path) -> None:
    run = read_json(simulated / "results/federation/run.json")
    assert run["rounds"] == 1
    assert (
        read_json(simulated / "results/evaluation.json")["models"]["global"]["digest"]
        == (run["checkpoints"]["best"]["digest"])
    )


def test_lerobot_evaluates_the_trained_checkpoint(owner: Owner, simulated: Path, tmp_path: Path) -> None:
    copied = tmp_path / simulated.relative_to(owner.root) / "checkpoints"  # away from where it was made
    shutil.copytree(simulated / "checkpoints", copied)
    fewer = " --env.episode_length=4 --eval.n_episodes=1 --eval.batch_size=1 --eval.use_async_envs=false"

    owner.lerobot(
        documented(PAGE, "lerobot-eval") + fewer + " --policy.device=cpu --seed=100000 --output_dir=evaluated", tmp_path
    )

    assert read_json(tmp_path / "evaluated" / "eval_info.json")["overall"]["n_episodes"] == 1


@pytest.mark.usefixtures("trained")
def test_a_training_that_was_stopped_twice_ends_at_the_same_model(owner: Owner, tmp_path: Path) -> None:
    """By Ctrl-C in its second round, by SIGKILL in its third."""
    (tmp_path / "cups").symlink_to(owner.root / "cups")
    events = tmp_path / TRAINED / "results/federation/events.jsonl"

    def stopped(line: str, number: int, how: signal.Signals) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", *shlex.split(line)],
            cwd=tmp_path,
            env=owner.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A background job starts with SIGINT ignored, and so would this child of one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 400
        # A round is saved behind the one that follows it.
        while not (events.exists() and f"round {number - 1} saved" in events.read_text()):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0][-2000:]
            time.sleep(0.02)
        process.send_signal(how)
        output, _ = process.communicate(timeout=60)
        assert process.returncode != 0
        return output

    said = stopped(documented(PAGE, "zk0 train --data local:cups") + FEW, 2, signal.SIGINT)
    assert "`zk0 train --name cups` goes on from the last one" in said and "Traceback" not in said
    stopped(documented(PAGE, "zk0 train --name cups"), 3, signal.SIGKILL)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path)
        resumed = typed(documented(PAGE, "zk0 train --name cups"))

    assert "continuing after round 2" in resumed
    assert read_json(tmp_path / TRAINED / "results/federation/run.json")["resumed_at_rounds"] == [1, 2]
    for name in ("best", "last"):
        ours = tmp_path / TRAINED / "checkpoints" / name / "model.safetensors"
        assert digest_file(ours) == digest_file(TRAINED / "checkpoints" / name / "model.safetensors")


def test_data_that_is_not_fit_is_refused_with_nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent; of one episode; normalised and not said so; with cameras that the policy does not know."""
    monkeypatch.chdir(tmp_path)
    steps = [motor_steps(14, seed) for seed in range(2)]
    write_v3(tmp_path / "one", [as_lerobot(steps[0], "degrees")])
    write_v3(tmp_path / "normalised", [as_lerobot(one, "range_m100_100") for one in steps])
    write_v3(tmp_path / "other", [as_lerobot(one, "degrees") for one in steps])
    before = {path.name for path in tmp_path.iterdir()}

    for data, message in (
        ("absent", "absent does not exist; expected the folder of a LeRobot dataset"),
        ("one", "record at least two"),
        ("normalised", r"is certainly normalised(?s:.*)As options of `zk0 train`:.*data\.conventions: --convention"),
        ("other", r"cameras observation\.images\.top.*which the policy does not know(?s:.*)--camera top=POLICY'S"),
    ):
        with pytest.raises((StageError, ValueError), match=message):
            typed(f"zk0 train --data local:{data} --device cpu{FEW}")

        assert {path.name for path in tmp_path.iterdir()} == before | {".cache"}


def test_a_step_that_is_none_or_not_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(StageError, match="did you mean 'model loading'"):
        typed("zk0 train --data x --only model-loading")
    with pytest.raises(StageError, match="'model update' is a part of every round, which --only 'local training' runs"):
        typed("zk0 train --data x --only 'model update'")
    assert not (tmp_path / "trainings").exists()


def test_a_step_before_its_turn_says_which_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_v3(tmp_path / "cups", [as_lerobot(motor_steps(14, 0), "degrees")], fps=30)

    with pytest.raises(StageError, match=r"sources\.lock\.json not found; .*the step 'environment setup'"):
        typed("zk0 train --data cups --base random:nano --only 'dataset preparation'")
