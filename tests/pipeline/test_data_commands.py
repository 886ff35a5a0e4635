"""`zk0 data`: the commands of docs/data.md, tried as a person types them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from docs_commands import documented, typed
from so100_recordings import as_lerobot, as_old_lerobot, calibration_file, files_of, motor_steps, write_v3, write_v21
from tests_support import REPO
from typer.testing import CliRunner

from zk0.cli.app import app
from zk0.data.dataset import DatasetFolder
from zk0.errors import DataError
from zk0.params import ParamsError

DOCS = (REPO / "docs" / "data.md").read_text()


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets that the page speaks of; read only."""
    root = tmp_path_factory.mktemp("owners")
    steps = [motor_steps(20, seed) for seed in range(2)]
    write_v3(root / "cups", [as_lerobot(one, "degrees") for one in steps], fps=30)
    write_v3(root / "normalised", [as_lerobot(one, "range_m100_100") for one in steps], fps=30)
    write_v21(root / "cups-v21", [as_old_lerobot(one) for one in steps])
    return root


@pytest.fixture
def home(owners: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with the datasets beside it, the working directory."""
    for dataset in owners.iterdir():
        (tmp_path / dataset.name).symlink_to(dataset)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("home")
def test_checking_a_dataset_says_what_it_is() -> None:
    said = typed(documented("data.md", "zk0 data check"))

    assert "2 episodes, 40 frames; lift the cube, drop the cube" in said
    assert "30 a second" in said and "top, 32x32" in said
    assert re.search(r"joints +degrees, by the data", said)


@pytest.mark.usefixtures("home")
def test_checking_a_path_is_checking_a_local_source() -> None:
    typed("zk0 data check cups")  # says that it decodes every picture, which the next has no need of

    assert typed("zk0 data check cups") == typed("zk0 data check local:cups")


@pytest.mark.usefixtures("home")
def test_checking_says_what_params_must_say() -> None:
    with pytest.raises(DataError, match=r"'mine' is certainly normalised.*data\.conventions: \{mine: normalised\}"):
        typed("zk0 data check local:normalised")


@pytest.mark.parametrize("folder", ["normalised", "cups-v21"])
def test_what_is_not_fit_is_described_all_the_same(home: Path, folder: str) -> None:
    done = CliRunner().invoke(app, ["data", "check", folder])

    assert isinstance(done.exception, DataError)
    assert "so100" in done.output or "so101_follower" in done.output
    assert "2 episodes, 40 frames" in done.output and "wrist, video" in done.output


def test_converting_and_what_it_says_next(home: Path) -> None:
    before = files_of(home / "cups-v21")
    line = documented("data.md", "zk0 data convert local:")

    said = typed(line)

    assert "cups-v3 converted: 2 episodes, 40 frames" in said
    assert "local:cups-v3" in said and "zk0 data check local:cups-v3" in said
    assert "was converted before" in typed(line)
    assert files_of(home / "cups-v21") == before
    with pytest.raises(DataError, match=r"data\.conventions: \{mine: so100-old\}"):
        typed("zk0 data check local:cups-v3")


@pytest.mark.usefixtures("home")
def test_a_kind_that_is_none() -> None:
    with pytest.raises(ValueError, match="has an unknown kind; did you mean 'local'"):
        typed("zk0 data check locl:cups")
    with pytest.raises(DataError, match="sim:push-red-cube-left is recorded by `zk0 prepare`"):
        typed("zk0 data convert sim:push-red-cube-left new")


def params_of_docs(heading: str) -> dict[str, object]:
    """The page's params under a heading."""
    section = DOCS.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```yaml\n(.*?)```", section, re.S)
    return dict(yaml.safe_load(block))


HEADINGS = (
    "My dataset has other cameras",
    "Mine is recorded at another rate",
    "Mine is in degrees of LeRobot before June 2025",
    "Mine is normalised",
)


@pytest.mark.parametrize("heading", HEADINGS)
def test_params_of_the_page_do_what_it_says(home: Path, heading: str) -> None:
    """Datasets are made as the page's params describe them; params as they stand there must be accepted."""
    data = params_of_docs(heading)["data"]
    assert isinstance(data, dict)
    for number, (name, source) in enumerate(data["sites"].items()):
        folder = home / source.removeprefix("local:")
        if folder.exists():
            continue
        steps = [motor_steps(18, 10 * number + k) for k in range(2)]
        kind = data.get("conventions", {}).get(name, "degrees")
        if kind == "so100-old":
            states = [as_old_lerobot(one) for one in steps]
        else:
            states = [as_lerobot(one, "degrees" if kind == "degrees" else "range_m100_100") for one in steps]
        cameras = list(data.get("cameras", {}).get(name, {})) or ["top", "wrist"]
        write_v3(folder, states, cameras=cameras, fps=data.get("fps", 10) * data.get("every", {}).get(name, 1))
    for file in data.get("calibrations", {}).values():
        if file != "measured":
            (home / file).parent.mkdir(parents=True, exist_ok=True)
            calibration_file(home / file)
    (home / "params.yaml").write_text(yaml.safe_dump({"policy": {"base": "random:nano"}, "data": data}))

    said = typed("zk0 data check")

    for name in data["sites"]:
        assert name in said


def test_without_params_and_source_there_is_nothing_to_check(home: Path) -> None:
    with pytest.raises(ParamsError, match="not found"):
        typed("zk0 data check")


@pytest.mark.usefixtures("home")
def test_the_images_of_tables_become_videos_by_the_command_that_is_named(tmp_path: Path) -> None:
    """LeRobot's own command, as the refusal words it, makes what is then accepted."""
    states = [as_lerobot(motor_steps(14, seed), "degrees") for seed in range(2)]
    write_v3(tmp_path / "pictures", states, use_videos=False)
    with pytest.raises(DataError) as refused:
        typed("zk0 data check local:pictures")
    (line,) = re.findall(r"`(lerobot-edit-dataset .*?)`", str(refused.value))
    words = line.replace("FOLDER", str(tmp_path / "video")).split()
    command = [str(Path(sys.executable).with_name(words[0])), *words[1:]]

    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    # Not its exit status: once all was saved, its threads have been seen to abort the process as it ended.
    assert "Dataset saved locally" in done.stderr, done.stderr[-2000:]
    assert "degrees, by the data" in typed("zk0 data check local:video")
    assert np.array_equal(DatasetFolder(tmp_path / "video", "x").rows.states, np.concatenate(states))
