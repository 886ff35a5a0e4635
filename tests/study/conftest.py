"""A study at the smallest size: two simulated sites, one unseen task, real recordings, policy and pieces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from comparison_params import SMALL

if TYPE_CHECKING:
    from zk0.params import Params
    from zk0.study.project import StudyProject
    from zk0.study.results_store import StudyFolder
    from zk0.study.studies import Study


@pytest.fixture(scope="session")
def study_params() -> Params:
    """Two simulated sites of three episodes each."""
    from zk0.params import parse_params

    return parse_params(SMALL)


@pytest.fixture(scope="session")
def study_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the project that runs studies."""
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="session")
def project(study_root: Path, study_params: Params) -> StudyProject:
    """Recorded, checked and split. Read only."""
    from zk0.study.project import prepared

    return prepared(study_root, study_params)


@pytest.fixture(scope="session")
def local_project(tmp_path_factory: pytest.TempPathFactory, small_params: Params) -> StudyProject:
    """The recording of cubes dealt to two sites, no simulator of it known. Read only."""
    from zk0.study.project import prepared

    return prepared(tmp_path_factory.mktemp("local-study"), small_params)


@pytest.fixture(scope="session")
def comparison_study(study_params: Params) -> Study:
    """The comparison with all its arms."""
    from zk0.study.studies import study_named

    return study_named("comparison", study_params)


@pytest.fixture(scope="session")
def compared(study_root: Path, project: StudyProject, comparison_study: Study, study_params: Params) -> StudyFolder:
    """The whole comparison, run; copy it before changing it."""
    from zk0.study.runner import Runner

    runner = Runner(study_root, project, comparison_study)
    runner.run(study_params)
    return runner.folder


@pytest.fixture
def recorded_folder(project: StudyProject, study_root: Path, tmp_path: Path) -> Path:
    """A project folder with params, and with the study's recordings so that they need not be made again."""
    import shutil

    import yaml

    (tmp_path / "params.yaml").write_text(yaml.safe_dump(SMALL, sort_keys=False))
    for part in ("data", "results", "sources.lock.json", "prepared.json"):
        source, target = project.root / part, tmp_path / project.root.relative_to(study_root) / part
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    return tmp_path
