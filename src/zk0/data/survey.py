"""What a source is and what it is taken for: found out once, for the manifests and for the report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from zk0.data.cameras import Cameras, rename_cameras
from zk0.data.check import check_dataset
from zk0.data.conventions import Joints, Recording, settle
from zk0.data.dataset import DatasetFolder
from zk0.data.decoded import check_pictures
from zk0.data.formats import require_v3
from zk0.data.joints import embodiment
from zk0.data.keys import STATE
from zk0.data.units import check_units
from zk0.errors import DataError
from zk0.params import DataParams


@dataclass(frozen=True)
class Survey:
    """A source that a site may train on.

    Attributes:
        name: In params.
        source: As params write it.
        revision: Commit of a hub source, digest of what was recorded or found otherwise.
        dataset: Its folder.
        cameras: What becomes of its cameras.
        every: One frame in so many is taken.
        joints: What its joint values are taken for.
    """

    name: str
    source: str
    revision: str
    dataset: DatasetFolder
    cameras: Cameras
    every: int
    joints: Joints

    @property
    def episodes(self) -> list[int]:
        """All episode indices."""
        return list(self.dataset.rows.bounds)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Its instructions, the most frequent first."""
        rows = self.dataset.rows
        counted = Counter(self.dataset.task_names[int(task)] for task in rows.tasks)
        return tuple(task for task, _ in counted.most_common())


def survey(name: str, source: str, revision: str, dataset: DatasetFolder, params: DataParams, root: Path) -> Survey:
    """Check a source and settle what it is taken for.

    Args:
        name: In params.
        source: As params write it.
        revision: What it was resolved to.
        dataset: Its folder.
        params: What params say of it.
        root: Project folder.

    Raises:
        DataError: A site must not train on it, or params must say more about it.
    """
    require_v3(dataset.info, dataset.repo_id, source)
    cameras = rename_cameras(name, dataset, params)
    every = params.every.get(name, 1)
    check_dataset(dataset, params.fps, every, name, cameras.sources.values())
    check_units(name, dataset.rows.states, dataset.rows.actions)
    said, calibration = params.conventions.get(name), params.calibrations.get(name)
    joints = settle(name, said, calibration, recording_of(dataset), root)
    if not source.startswith("sim:"):  # those were encoded here a moment ago
        check_pictures(dataset, cameras.sources.values(), root)
    return Survey(name, source, revision, dataset, cameras, every, joints)


def recording_of(dataset: DatasetFolder) -> Recording:
    """What of a dataset tells how its joint values are written."""
    return Recording(
        features=dataset.info["features"],
        names=dataset.written_names(STATE),
        robot_type=dataset.robot_type,
        states=dataset.rows.states,
        bounds=dataset.rows.bounds,
    )


def check_robots(surveys: list[Survey]) -> None:
    """One global model needs one kind of robot.

    Raises:
        DataError: Names both sources and their robots.
    """
    first, *others = surveys
    for other in others:
        if embodiment(other.dataset.robot_type) != embodiment(first.dataset.robot_type):
            raise DataError(
                f"mixed embodiments: '{first.name}' is a {first.dataset.robot_type}, '{other.name}' a "
                f"{other.dataset.robot_type}"
            )
