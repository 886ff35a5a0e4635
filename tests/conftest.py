"""One small recording, one prepared project and one untrained policy for all tests of a session.

Everything heavy is imported inside the fixtures, so that tests which need none of it start at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

    from zk0.data.frames import Frames
    from zk0.data.sim.tasks import SimTask
    from zk0.params import Params
    from zk0.policy.checkpoint import LoadedPolicy
    from zk0.policy.trainable import Tensors

# Before torch is imported. Tests run side by side, one on each core, so each has one thread (results depend on it in
# the last bit); and threads that wait would otherwise spin, for several times as long as the work itself takes.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.pop("ZK0_FEATURES", None)  # a developer's fast disk is not the tests' business

FIRST_SEED = 20  # its eight scenes have four green cubes and four red ones

# What takes longest, so that it is begun first and no worker is left with it at the end. A folder's tests share what is
# dear to make (a server, a finished run), so one worker has all of them, but for the files named before it.
FIRST = (
    "tests/flows/",
    "tests/network/test_walk_through.py",
    "tests/network/test_failures.py",
    "tests/study/test_nights_run.py",
    "tests/network/test_recovery.py",
    "tests/federation/test_scale.py",
    "tests/e2e/test_profiles_run.py",
    "tests/e2e/",
    "tests/network/test_full_disk.py",
    "tests/operations/",
    "tests/network/test_join.py",
    "tests/study/",
    "tests/federation/test_lies.py",
)


def _unit(file: str) -> str:
    """What one worker gets as a whole: a file, or a folder."""
    return next((start for start in FIRST if file.startswith(start)), file)


# Fixtures that start real services or make whole runs: `make test-services` has their tests.
SERVICES = {"finished", "served", "deployed", "federation", "trainers"}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Whatever meets a service or a whole run is no quick test."""
    if SERVICES.intersection(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.services)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes hours is left out unless it is asked for, and of the others what takes longest is begun first."""
    if "release" not in config.option.markexpr:
        dear = [item for item in items if item.get_closest_marker("release")]
        items[:] = [item for item in items if item not in dear]
        config.hook.pytest_deselected(items=dear)
    rank = {start: number for number, start in enumerate(FIRST)}
    items.sort(key=lambda item: rank.get(_unit(item.nodeid.partition("::")[0]), len(rank)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Deal whole files to the workers, and what belongs together as one."""
    from xdist.scheduler import LoadScopeScheduling

    class ByUnit(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _unit(nodeid.partition("::")[0])

    config.option.loadscopereorder = False  # by number of tests: the dear ones are few
    return ByUnit(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A stage sets the threads of the whole process, and results depend on them in the last bit: fixtures' too."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def first_seed() -> int:
    """Seed of the first scene of ``recorded``."""
    return FIRST_SEED


@pytest.fixture(scope="session")
def cube_task() -> SimTask:
    """Two instructions in one task: touch the red cube, touch the green cube."""
    from zk0.data.sim.tasks import Region, SimTask

    return SimTask("touch-cube", "touch", ("cube",), ("red", "green"), Region((-20, 20), (0.19, 0.26)))


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory, cube_task: SimTask, first_seed: int) -> Path:
    """A dataset of eight episodes, four of each instruction. Copy it before changing it."""
    from zk0.data.recordings import record_dataset

    folder = tmp_path_factory.mktemp("recorded") / "cubes"
    record_dataset(cube_task, folder, repo_id="zk0/cubes", episodes=8, seed=first_seed, noise=0.25, image_size=96)
    return folder


@pytest.fixture(scope="session")
def params_content(recorded: Path) -> dict[str, Any]:
    """A params mapping: the recording dealt to two sites, one round of two steps."""
    return {
        "seed": 1,
        "threads": 1,
        "policy": {"base": "random:nano"},
        "data": {
            "sites": {"cubes": f"local:{recorded}"},
            "partition": {"scheme": "equal", "sites": 2},
            "held_out": 0.25,
        },
        "training": {"local_steps": 2, "batch": 4, "warmup_steps": 0},
        "federation": {"rounds": 2},
        "evaluation": {"loss_draws": 1, "rollouts": 2, "max_steps": 6},
    }


@pytest.fixture(scope="session")
def small_params(params_content: dict[str, Any]) -> Params:
    """``params_content``, parsed."""
    from zk0.params import parse_params

    return parse_params(params_content)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, small_params: Params) -> Path:
    """A project's root after ``prepare``: sites cubes-0 and cubes-1, three training episodes each. Read only."""
    from zk0.files import write_json
    from zk0.pipeline import prepare
    from zk0.sources_lock import resolve_sources

    root = tmp_path_factory.mktemp("prepared")
    write_json(root / "sources.lock.json", resolve_sources(small_params, root))
    prepare.run(root, small_params)
    return root


@pytest.fixture(scope="session")
def frames(prepared: Path) -> Frames:
    """Training frames of the first site, images in memory."""
    from zk0.data.load import load_frames
    from zk0.data.manifest import read_manifests

    first = read_manifests(prepared)[0][0]
    return load_frames(first, prepared, first.train_episodes, 10**9)


@pytest.fixture(scope="session")
def _untrained(frames: Frames) -> tuple[LoadedPolicy, Tensors]:
    from zk0.federation.statistics import moments_of
    from zk0.policy.checkpoint import with_stats
    from zk0.policy.start import load_start
    from zk0.policy.trainable import trainable_tensors

    policy = load_start(Path(), "random:nano", "cpu").policy
    return with_stats(policy, moments_of(frames).normalisation()), trainable_tensors(policy)


@pytest.fixture
def loaded(_untrained: tuple[LoadedPolicy, Tensors]) -> Iterator[LoadedPolicy]:
    """The embedded-size SmolVLA, untrained; what a test trains into it is undone afterwards."""
    from zk0.policy.trainable import load_trainable

    policy, start = _untrained
    yield policy
    load_trainable(policy.policy, start)
    policy.policy.eval()


@pytest.fixture
def start(_untrained: tuple[LoadedPolicy, Tensors]) -> Tensors:
    """The trainable tensors of ``loaded``."""
    return dict(_untrained[1])
