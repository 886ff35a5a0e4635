"""Every kind of source through both orchestrators: one makes the run, the other finds nothing left to do.

Simulated sources alone, with an unseen task and films, are what the other tests here run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_server import serve
from so100_recordings import as_lerobot, motor_steps, write_v3
from tests_support import REPO, Project, make_project

from zk0.files import read_json

pytestmark = pytest.mark.services

NAME = "owner/cups"
FRESH = "Stage '{}' didn't change, skipping"
REAL = "real recordings have no simulated scene"
MADE_ONCE = ("prepare", "federate", "evaluate", "benchmark", "report", "track")

Make = Callable[..., Project]


@pytest.fixture(scope="module")
def cups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings at the simulated arm's rate."""
    episodes = [as_lerobot(motor_steps(14, seed), "degrees") for seed in range(4)]
    return write_v3(tmp_path_factory.mktemp("recordings") / "cups", episodes)


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two owners' folders, with the names, cameras and rate that docs/data.md speaks of."""
    place = tmp_path_factory.mktemp("owners")
    for first, name in enumerate(("kitchen", "lab")):
        episodes = [as_lerobot(motor_steps(14, 10 * first + seed), "degrees") for seed in range(3)]
        write_v3(place / name, episodes, cameras=("front", "arm"), fps=30)
    return place


@pytest.fixture(scope="module")
def mugs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three more, by another owner."""
    episodes = [as_lerobot(motor_steps(12, seed), "degrees") for seed in range(10, 13)]
    return write_v3(tmp_path_factory.mktemp("recordings") / "mugs", episodes)


@pytest.fixture(scope="module", autouse=True)
def _prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        with prefect_test_harness(server_startup_timeout=120):
            yield


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Lays out a project with other data and evaluation, one round of two steps."""

    def made(
        sites: dict[str, str], unseen: dict[str, str], data: dict[str, Any], evaluation: dict[str, Any]
    ) -> Project:
        project = make_project(tmp_path / "project", tmp_path / "home")

        def change(params: dict[str, Any]) -> None:
            params["data"] |= {"sites": sites, "unseen": unseen, **data}
            params["training"]["local_steps"] = 2
            params["federation"]["rounds"] = 1
            params["evaluation"] |= {"max_steps": 4, **evaluation}

        project.change_params(change)
        return project

    return made


def flow(project: Project, **environment: str) -> str:
    """Run the flow ``federate`` in this process, its stages as it does; the name of the state in which it ended."""
    from flows.federate import federate

    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(project.root)
        for name, value in (project.env | environment).items():
            if os.environ.get(name) != value and not name.startswith("PREFECT_"):
                patched.setenv(name, value)
        state = federate(return_state=True)
    assert state.is_completed(), state.message
    return str(state.name)


def all_outputs(project: Project) -> list[Path]:
    """Every output that dvc.yaml names."""
    stages = yaml.safe_load((project.root / "dvc.yaml").read_text())["stages"]
    named = [out for stage in stages.values() for out in [*stage.get("outs", []), *stage.get("metrics", [])]]
    return [project.root / (next(iter(out)) if isinstance(out, dict) else out) for out in named]


def evaluated(project: Project) -> dict[str, Any]:
    """What evaluation.json says, once every output is there."""
    assert [path for path in all_outputs(project) if not path.exists()] == []
    return dict(read_json(project.root / "results/evaluation.json"))


def nothing_left(project: Project, **environment: str) -> None:
    """`dvc repro` finds every stage fresh but the one that always runs."""
    output = project.run("dvc", "repro", **environment).stdout
    assert [stage for stage in MADE_ONCE if FRESH.format(stage) not in output] == []


@pytest.mark.release
def test_local_only_by_dvc_then_by_the_demo(make: Make, owners: Path) -> None:
    """As documented: nothing is simulated or unseen, and what is not measured is said, not shown as 0."""
    told = (REPO / "docs/data.md").read_text().partition("## From my folder")[2].split("```")[1].removeprefix("yaml")
    params = yaml.safe_load(told.replace("/data/recordings", str(owners)))
    data = params["data"]
    project = make(data.pop("sites"), data.pop("unseen"), data, {"rollouts": 2, "videos": 1})

    output = project.run("dvc", "repro").stdout

    found = evaluated(project)
    empty = [project.root / "data/recordings", project.root / "results/rollouts"]
    assert [list(folder.iterdir()) for folder in empty] == [[], []]
    assert {name: task["no_rollouts"] for name, task in found["tasks"].items()} == {"kitchen": REAL, "lab": REAL}
    assert found["overall"]["global"]["successes"] is None
    shown = read_json(project.root / "results/metrics.json")
    assert "error_deg" in shown and not {"success", "unseen"} & shown.keys()
    page = (project.root / "results/report.html").read_text()
    assert f"On the sites&#39; own tasks, closed-loop success was not measured: {REAL}." in page
    assert "Success, unseen tasks" not in page and 'id="plot-success"' not in page
    assert "neither drove an arm" in output  # why it cannot become the champion by the metric that is the default
    # Fresh again from DVC's cache, empty folders and all.
    for folder in empty:
        folder.rmdir()
    project.run("dvc", "checkout")

    demo = project.run("zk0", "demo", COLUMNS="100")

    assert "nothing was new" in demo.stdout + demo.stderr
    assert f"success was not measured: {REAL}" in demo.stdout and "┃ success" not in demo.stdout


@pytest.mark.release
def test_hub_only_dealt_to_two_sites_by_the_flow_then_by_dvc_offline(make: Make, cups: Path) -> None:
    """Downloaded from a Hub by the flow; the branch is what the cache last saw of it once there is no network."""
    dealt = {"partition": {"scheme": "equal", "sites": 2}}
    project = make({"cups": f"hub:{NAME}@main"}, {}, dealt, {"rollouts": 1, "videos": 0})
    cache = {"HF_HUB_CACHE": str(project.root.parent / "hub")}
    with serve({f"datasets/{NAME}": cups}) as hub:
        assert flow(project, HF_ENDPOINT=hub.url, **cache) == "Completed"
        assert any(path.endswith(".mp4") for path in hub.asked)

    found = evaluated(project)
    assert set(found["tasks"]) == {"cups-0", "cups-1"}
    nothing_left(project, HF_HUB_OFFLINE="1", **cache)


@pytest.mark.release
def test_mixed_sources_without_films_by_dvc_then_by_the_flow_offline(make: Make, cups: Path, mugs: Path) -> None:
    """Of three kinds of sites only the simulated one is driven; the others are named where success stands."""
    sites = {"kitchen": f"local:{mugs}", "lab": f"hub:{NAME}@main", "red": "sim:push-red-cube-left"}
    unseen = {"purple": "sim:push-purple-cylinder-left"}
    project = make(sites, unseen, {"episodes": 2}, {"rollouts": 1, "videos": 0})
    cache = {"HF_HUB_CACHE": str(project.root.parent / "hub")}
    with serve({f"datasets/{NAME}": cups}) as hub:
        project.run("dvc", "repro", HF_ENDPOINT=hub.url, **cache)

    found = evaluated(project)
    assert {name: task["global"]["rollouts"] for name, task in found["tasks"].items()} == {
        "kitchen": 0,
        "lab": 0,
        "red": 1,
        "purple": 1,
    }
    assert found["videos"] == [] and found["overall"]["global"]["rollouts"] == 2
    page = (project.root / "results/report.html").read_text()
    assert f"Success on kitchen, lab was not measured: {REAL}." in page and "No rollout was filmed." in page
    assert flow(project, HF_HUB_OFFLINE="1", **cache) == "Unchanged"


@pytest.mark.release
def test_one_simulated_source_dealt_without_rollouts_by_the_flow_then_by_dvc(make: Make) -> None:
    dealt = {"partition": {"scheme": "equal", "sites": 2}, "episodes": 4}
    project = make({"red": "sim:push-red-cube-left"}, {}, dealt, {"rollouts": 0, "videos": 0})

    assert flow(project) == "Completed"

    found = evaluated(project)
    assert {name: task["no_rollouts"] for name, task in found["tasks"].items()} == {
        "red-0": "evaluation.rollouts is 0",
        "red-1": "evaluation.rollouts is 0",
    }
    assert "There were no rollouts: evaluation.rollouts is 0." in (project.root / "results/report.html").read_text()
    nothing_left(project)
