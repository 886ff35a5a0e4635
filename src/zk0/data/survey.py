"""What a source is and what it is taken for: found out once, for the manifests and for the data check report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zk0.data.cameras import Cameras, rename_cameras
from zk0.data.check import check_dataset, check_joints
from zk0.data.conventions import Joints, Recording, settle
from zk0.data.dataset import DatasetFolder
from zk0.data.formats import require_v3
from zk0.data.pictures import See, check_pictures
from zk0.data.units import check_units
from zk0.errors import DataError
from zk0.params import DataParams
from zk0.so100 import IMAGES, STATE, embodiment
from zk0.words import markdown_table, stretches


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
        left_out: Episodes that params leave out.
    """

    name: str
    source: str
    revision: str
    dataset: DatasetFolder
    cameras: Cameras
    every: int
    joints: Joints
    left_out: tuple[int, ...] = ()

    @property
    def episodes(self) -> list[int]:
        """The episodes that are taken."""
        return [episode for episode in self.dataset.rows.bounds if episode not in self.left_out]

    @property
    def frames(self) -> int:
        """How many frames the episodes that are taken have, at the recording's rate."""
        return sum(stop - start for e, (start, stop) in self.dataset.rows.bounds.items() if e not in self.left_out)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Its instructions, the most frequent first."""
        rows = self.dataset.rows
        taken = ~np.isin(rows.episodes, self.left_out)
        counted = Counter(self.dataset.task_names[int(task)] for task in rows.tasks[taken])
        return tuple(task for task, _ in counted.most_common())


def survey(
    name: str,
    source: str,
    revision: str,
    dataset: DatasetFolder,
    params: DataParams,
    root: Path,
    see: See | None = None,
) -> Survey:
    """Check a source and settle what it is taken for.

    Args:
        name: In params.
        source: As params write it.
        revision: What it was resolved to.
        dataset: Its folder.
        params: What params say of it.
        root: Project folder.
        see: Is shown each picture as it is decoded.

    Raises:
        DataError: A site must not train on it, or params must say more about it.
    """
    check_joints(dataset)  # before a conversion is asked for that could not help
    require_v3(dataset.info, dataset.repo_id, source)
    cameras = rename_cameras(name, dataset, params)
    every = params.every.get(name, 1)
    check_dataset(dataset, params.fps, every, name, cameras.sources.values())
    check_units(name, dataset.rows.states, dataset.rows.actions)
    said, calibration = params.conventions.get(name), params.calibrations.get(name)
    joints = settle(name, said, calibration, recording_of(dataset), root)
    if not source.startswith("sim:"):  # those were encoded here a moment ago
        check_pictures(dataset, cameras.sources.values(), root, see)
    left_out = _left_out(name, dataset, params.leave_out.get(name, ()))
    return Survey(name, source, revision, dataset, cameras, every, joints, left_out)


def _left_out(name: str, dataset: DatasetFolder, episodes: Sequence[int]) -> tuple[int, ...]:
    """The episodes that params leave out, if there are such and enough others."""
    known = dataset.rows.bounds
    if strange := sorted(set(episodes) - set(known)):
        raise DataError(
            f"data.leave_out of '{name}' names episode {strange[0]}, but {dataset.repo_id} has episodes "
            f"{stretches(known)}"
        )
    if episodes and len(known) - len(episodes) < 2:
        raise DataError(
            f"data.leave_out leaves {len(known) - len(episodes)} of {len(known)} episodes of '{name}' "
            f"({dataset.repo_id}), and two are needed, one to train on and one to judge by; leave out fewer, or record "
            "more"
        )
    return tuple(sorted(episodes))


def recording_of(dataset: DatasetFolder) -> Recording:
    """What of a dataset tells how its joint values are written."""
    return Recording(
        features=dataset.info.features,
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


def report_of(survey: Survey) -> dict[str, object]:
    """A source's entry in ``results/data.json``."""
    dataset, joints = survey.dataset, survey.joints
    return {
        "name": survey.name,
        "source": survey.source,
        "revision": survey.revision,
        "format": dataset.info.version,
        "robot_type": dataset.robot_type,
        "episodes": len(survey.episodes),
        "frames": survey.frames,
        "episodes_left_out": list(survey.left_out),
        "tasks": list(survey.tasks),
        "fps": {"recorded": dataset.fps, "every": survey.every, "taken": dataset.fps / survey.every},
        "cameras": {
            policys: {"own": own, "shape": list(dataset.image_shape(own))}
            for policys, own in sorted(survey.cameras.sources.items())
        },
        "left_out": list(survey.cameras.left_out),
        "joints": {
            "convention": joints.convention,
            "by": joints.by,
            "map": None if joints.map is None else joints.map.model_dump(mode="json"),
            "reasons": list(joints.reasons),
        },
    }


def facts_of(dataset: DatasetFolder) -> list[tuple[str, str]]:
    """What a dataset says of itself, in words, whether it can be trained on or not."""
    info = dataset.info
    return [
        ("format", f"LeRobot {info.version}"),
        ("robot", dataset.robot_type),
        ("recorded", f"{info.total_episodes} episodes, {info.total_frames} frames"),
        ("frames", f"{info.fps:g} a second"),
        *(("camera", f"{_short(own)}, {info.features[own].dtype}") for own in dataset.cameras),
    ]


def lines_of(survey: Survey, known: Iterable[str] = ()) -> list[tuple[str, str]]:
    """A source in words: what it is about, and what there is to say.

    Args:
        survey: The source.
        known: The image features of all sources; those that this one lacks are named.
    """
    dataset, joints, cameras = survey.dataset, survey.joints, survey.cameras
    taken = f"{dataset.fps:g} a second"
    if survey.every > 1:
        taken += f", one in {survey.every} taken: {dataset.fps / survey.every:g} a second"
    at = f" at {survey.revision[:12]}" if survey.revision else ""
    lines = [
        ("source", f"{survey.source}{at}, LeRobot {dataset.info.version}"),
        ("robot", dataset.robot_type),
        ("recorded", f"{len(survey.episodes)} episodes, {survey.frames} frames; {', '.join(survey.tasks)}"),
    ]
    if survey.left_out:
        lines.append(("", f"without episodes {stretches(survey.left_out)}, as params say"))
    lines.append(("frames", taken))
    for name, own in sorted(cameras.sources.items()):
        _, height, width = dataset.image_shape(own)
        renamed = "" if name == own else f" as {_short(name)}"
        lines.append(("camera", f"{_short(own)}{renamed}, {height}x{width}"))
    lines += [("camera", f"{_short(own)} is left out, as params say") for own in cameras.left_out]
    missing = [name for name in known if name not in cameras.sources]
    lines += [("camera", f"{_short(name)} is missing: hidden from the policy") for name in missing]
    converted = "" if joints.map is None else ", converted to degrees"
    lines.append(("joints", f"{joints.convention}, by {joints.by}{converted}"))
    return lines + [("", reason) for reason in joints.reasons]


def _short(camera: str) -> str:
    return camera.removeprefix(f"{IMAGES}.")


def markdown_of(surveys: Collection[Survey]) -> str:
    """The data check report for people, in Markdown."""
    known = sorted({camera for survey in surveys for camera in survey.cameras.sources})
    parts = ["# Data check report", ""]
    for survey in surveys:
        parts += [f"## {survey.name}", "", markdown_table(("", ""), lines_of(survey, known)), ""]
    return "\n".join(parts)
