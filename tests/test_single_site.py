"""What a request for a training becomes: params, a folder, or a refusal that leaves none."""

from __future__ import annotations

from pathlib import Path

import pytest

from zk0.errors import StageError
from zk0.files import write_json
from zk0.params import ParamsError, load_params
from zk0.workspaces.defaults import Request, camera_names
from zk0.workspaces.folder import open_training

SMALL = Request(data="cups", base="random:nano", steps=100, device="cpu")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the description of a dataset of 15 frames a second."""
    write_json(tmp_path / "cups" / "meta" / "info.json", {"fps": 15})
    (tmp_path / "constraints.md").write_text("- none\n")
    return tmp_path


def test_a_request_becomes_a_project_of_one_site(home: Path) -> None:
    training = open_training(home, SMALL)

    params = load_params(training.folder / "params.yaml")
    assert training.fresh and training.params == params
    assert training.folder == home / "trainings" / "cups"
    assert params.data.sites == {"cups": f"local:{home / 'cups'}"}
    assert (params.data.fps, params.policy.base, params.policy.device) == (15, "random:nano", "cpu")
    assert (params.federation.rounds, params.training.local_steps, params.training.batch) == (20, 5, 8)
    assert params.training.keep_moments and params.training.warmup_steps == 10
    assert (params.tracking.experiment, params.tracking.model) == ("zk0-train", "cups")
    assert not params.promotion.automatic and params.evaluation.rollouts == 0
    assert (training.folder / "constraints.md").read_text() == "- none\n"


@pytest.mark.parametrize(
    ("steps", "saves", "rounds", "local"), [(7, 20, 7, 1), (100, 20, 20, 5), (101, 20, 17, 6), (5, 1, 1, 5)]
)
def test_steps_are_dealt_to_saves_and_none_is_lost(home: Path, steps: int, saves: int, rounds: int, local: int) -> None:
    params = open_training(home, Request(data="cups", base="random:nano", steps=steps, saves=saves)).params

    assert (params.federation.rounds, params.training.local_steps) == (rounds, local)
    assert steps <= rounds * local < steps + local


def test_defaults_follow_device_and_size_of_the_policy(home: Path) -> None:
    cuda = open_training(home, Request(data="cups", name="a", device="cuda")).params
    small = open_training(home, Request(data="cups", name="b", device="cpu", base="random:nano")).params

    assert cuda.policy.base == "hub:lerobot/smolvla_base"
    assert (cuda.federation.rounds * cuda.training.local_steps, cuda.training.batch) == (20_000, 64)
    assert (cuda.training.precision, cuda.training.learning_rate) == ("bf16", 1e-4)
    assert (small.federation.rounds * small.training.local_steps, small.training.batch) == (1_000, 8)
    assert (small.training.precision, small.training.learning_rate) == ("fp32", 5e-4)


def test_paths_are_those_of_the_project(home: Path) -> None:
    write_json(home / "arm.json", {})
    asked = Request(data="local:cups", base="models/mine", convention="normalised", calibration="arm.json")

    params = open_training(home, asked).params

    assert params.policy.base == str(home / "models" / "mine")
    assert params.data.calibrations == {"cups": str(home / "arm.json")}


def test_episodes_to_leave_out_are_the_owners_own(home: Path) -> None:
    params = open_training(home, Request(data="local:cups", base="random:nano", leave_out=(3, 1))).params

    assert params.data.leave_out == {"cups": (1, 3)}


@pytest.mark.parametrize(
    ("data", "name"), [("hub:me/lift.cup@main", "lift-cup"), ("sim:push-red-cube-left", "push-red-cube-left")]
)
def test_a_training_is_named_after_its_data(home: Path, data: str, name: str) -> None:
    assert open_training(home, Request(data=data, base="random:nano")).name == name


def test_the_same_request_goes_on(home: Path) -> None:
    open_training(home, SMALL)

    assert not open_training(home, SMALL).fresh
    assert not open_training(home, Request(name="cups")).fresh


def test_other_settings_are_another_training(home: Path) -> None:
    open_training(home, SMALL)

    with pytest.raises(StageError, match=r"training.batch is 8, asked for is 4\. `zk0 train --name cups` goes on"):
        open_training(home, Request(data="cups", base="random:nano", steps=100, device="cpu", batch=4))


def test_what_cannot_be_is_refused_before_a_folder_is_made(home: Path) -> None:
    with pytest.raises(StageError, match=r"--data says what to train on"):
        open_training(home, Request())
    with pytest.raises(StageError, match="may hold letters, digits"):
        open_training(home, Request(data="cups", name="my cups"))
    with pytest.raises(ValueError, match="did you mean 'local'"):
        open_training(home, Request(data="locl:cups"))
    with pytest.raises(ValueError, match=r"random:nono' is not one of"):
        open_training(home, Request(data="cups", base="random:nono"))
    with pytest.raises(ParamsError, match=r"zk0 train: policy.device: .*got 'gpu'"):
        open_training(home, Request(data="cups", base="random:nano", device="gpu"))
    with pytest.raises(StageError, match=r"as in top=camera1, not 'top'"):
        camera_names(["top"])
    assert not (home / "trainings").exists()


def test_going_on_needs_a_training_and_takes_its_settings(home: Path) -> None:
    open_training(home, SMALL)

    with pytest.raises(StageError, match="no training 'cup' to go on with; did you mean 'cups'"):
        open_training(home, Request(name="cup"))
    with pytest.raises(StageError, match=r"--steps is for a new training.*trainings/cups/params.yaml: change it there"):
        open_training(home, Request(name="cups", steps=3))
    with pytest.raises(StageError, match=r"--name cups goes on with a training that is there"):
        open_training(home, Request())


def test_only_a_new_training_that_has_not_trained_is_removed(home: Path) -> None:
    fresh = open_training(home, SMALL)
    (home / ".cache" / "features").mkdir()
    with pytest.raises(StageError, match="refused"), fresh.removed_if_refused():
        raise StageError("refused")
    assert not (home / "trainings").exists()
    assert (home / ".cache" / "features").is_dir()  # what is linked is the project's

    trained = open_training(home, SMALL)
    (trained.folder / "state").mkdir()
    opened = open_training(home, SMALL)
    for one in (trained, opened):
        with pytest.raises(StageError, match="later"), one.removed_if_refused():
            raise StageError("later")
    assert (trained.folder / "params.yaml").exists()


def test_cameras_are_mapped_or_dropped(home: Path) -> None:
    names = camera_names(["top=camera1", "side="])

    assert names == {"top": "camera1", "side": None}
    params = open_training(home, Request(data="cups", base="random:nano", cameras=names)).params
    assert params.data.camera_names("cups") == names
