"""Filmed rollouts, as data that the page carries with it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from zk0.records.files import MissingRecordError, RecordError
from zk0.records.paths import EVALUATION
from zk0.records.results import Evaluation, Video

_KINDS = {".mp4": "video/mp4", ".webm": "video/webm"}


@dataclass(frozen=True)
class Clip:
    """A film and how it ended."""

    success: bool
    uri: str


@dataclass
class Scene:
    """One scene, met by both models; None where a model was not filmed."""

    seed: int
    base: Clip | None = None
    trained: Clip | None = None


@dataclass
class TaskScenes:
    """A task's scenes."""

    name: str
    sentence: str
    unseen: bool
    scenes: list[Scene] = field(default_factory=list)


def read_scenes(root: Path, evaluation: Evaluation) -> list[TaskScenes]:
    """Read every film that the evaluation lists.

    Raises:
        MissingRecordError: A film is not there.
        RecordError: A film has an unknown kind, a place outside the project, or a task that was
            not evaluated.
    """
    scenes: dict[tuple[str, int], Scene] = {}
    for video in evaluation.videos:
        if video.task not in evaluation.tasks:
            raise RecordError(f"{root / EVALUATION} lists a video of '{video.task}', a task it did not evaluate")
        scene = scenes.setdefault((video.task, video.seed), Scene(video.seed))
        clip = Clip(video.success, _data_uri(root, video))
        if video.model == "base":
            scene.base = clip
        else:
            scene.trained = clip
    tasks = []
    for name, task in [*evaluation.with_role("site").items(), *evaluation.with_role("unseen").items()]:
        own = [scene for (of, _), scene in sorted(scenes.items()) if of == name]
        if own:
            tasks.append(TaskScenes(name, task.sentence, task.role == "unseen", own))
    return tasks


def _data_uri(root: Path, video: Video) -> str:
    """A film as a data URI."""
    place = PurePosixPath(video.file)
    # Judged by its text: DVC may link results to a cache elsewhere, and such a link is fine.
    if place.is_absolute() or ".." in place.parts:
        raise RecordError(f"{root / EVALUATION} lists the video {video.file}, which is outside the project")
    if place.suffix not in _KINDS:
        raise RecordError(f"{root / EVALUATION} lists {video.file}; a video must end in {' or '.join(_KINDS)}")
    if not (root / place).is_file():
        raise MissingRecordError(f"{root / place} is missing; `zk0 evaluate` makes it")
    return f"data:{_KINDS[place.suffix]};base64,{base64.b64encode((root / place).read_bytes()).decode()}"
