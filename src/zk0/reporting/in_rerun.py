"""Recordings and rollouts as files of Rerun's (https://rerun.io), in which all is named as by `lerobot-dataset-viz`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from zk0.console import progress_bar
from zk0.errors import StageError
from zk0.files import new_file
from zk0.records.files import film, read
from zk0.records.results import Evaluation, JointTrace, Video

if TYPE_CHECKING:  # rollouts are shown without torch, which takes seconds
    from zk0.data.frames import Frames

_AT_ONCE = 32  # pictures of a camera in memory
_JPEG = 90  # quality
_CUT = "cut"  # drawn as points: where nothing was cut there is no value
_COLOURS = {
    **{"action": 0x1F77B4FF, "state": 0x7F7F7FFF, "chunk": 0xD62728FF},
    **{"was": 0x1F77B4FF, "asked": 0x7F7F7FFF, _CUT: 0xD62728FF},
}

# What is drawn over time: a name, as "action", to joint to (N,) values; NaN where there is none.
Lines = Mapping[str, Mapping[str, np.ndarray]]


def write_episode(file: Path, title: str, frames: Frames, hz: float, lines: Lines) -> None:
    """Write the pictures of an episode of ``hz`` frames a second, and what is drawn below them."""
    cameras = frames.images.cameras
    shown = rrb.Vertical(
        rrb.Horizontal(*(rrb.Spatial2DView(origin=_path(camera), name=camera) for camera in cameras)),
        rrb.Tabs(
            _by_joint("", lines),
            rrb.Horizontal(*(rrb.TimeSeriesView(origin=name, name=name) for name in lines), name="all joints"),
        ),
    )
    with _recording(file, title, shown) as stream, progress_bar() as bar:
        _draw(stream, "", hz, lines)
        counted = bar.add_task("frames", total=len(frames))
        for start in range(0, len(frames), _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, len(frames)))
            for camera in cameras:
                pixels = frames.images.read(camera, rows, keep=False).mul(255).round().byte().permute(0, 2, 3, 1)
                _pictures(stream, _path(camera), hz, enumerate(pixels.numpy(), start))
            bar.advance(counted, len(rows))


def write_rollouts(file: Path, root: Path) -> None:
    """Write what the last evaluation filmed, a tab a scene: both models, and the joints as the global one drove them.

    Raises:
        StageError: There was none, it filmed nothing, or a film is gone.
    """
    scenes: dict[tuple[str, int], list[Video]] = {}
    for video in read(root, Evaluation).videos:
        scenes.setdefault((video.task, video.seed), []).append(video)
    if not scenes:
        raise StageError("the last evaluation filmed no rollouts; evaluation.videos in params says how many of a task")
    tabs = [_scene_view(_path(*scene), f"{scene[0]}, scene {scene[1]}", videos) for scene, videos in scenes.items()]
    with _recording(file, "rollouts of the last evaluation", rrb.Tabs(*tabs)) as stream:
        for scene, videos in scenes.items():
            for video in videos:
                with av.open(str(film(root, video))) as container:
                    pictures = (picture.to_ndarray(format="rgb24") for picture in container.decode(video=0))
                    hz = float(container.streams.video[0].average_rate or 1)
                    _pictures(stream, _path(*scene, video.model), hz, enumerate(pictures))
                if video.trace:
                    _draw(stream, _path(*scene), video.trace.hz, _driven(video.trace))


def _scene_view(path: str, name: str, videos: Iterable[Video]) -> rrb.Vertical:
    said = {video.model: f"{video.model} model: {'done' if video.success else 'not done'}" for video in videos}
    films = [rrb.Spatial2DView(origin=f"{path}/{model}", name=text) for model, text in said.items()]
    joints = [_by_joint(path, _driven(video.trace)) for video in videos if video.trace]
    return rrb.Vertical(rrb.Horizontal(*films), *joints, name=name)


def _driven(trace: JointTrace) -> Lines:
    """Where the joints were, what the policy asked for, and what an arm was given where that is something else."""
    was, asked, sent = (np.array(rows) for rows in (trace.positions, trace.asked, trace.sent))
    found = {"was": was, "asked": asked, _CUT: np.where(sent == asked, np.nan, sent)}
    return {name: dict(zip(trace.joints, values.T, strict=True)) for name, values in found.items()}


def _by_joint(path: str, lines: Lines) -> rrb.Grid:
    """A view a joint, with all lines that it has, which are told apart by name and colour."""
    views = []
    for joint in dict.fromkeys(joint for values in lines.values() for joint in values):
        style: dict[Any, rr.SeriesLines | rr.SeriesPoints] = {}
        for name in lines:
            if joint in lines[name]:
                colour, place = _COLOURS[name], f"{path}{_path(name, joint)}"
                points = rr.SeriesPoints(names=name, colors=colour)
                style[place] = points if name == _CUT else rr.SeriesLines(names=name, colors=colour)
        views.append(rrb.TimeSeriesView(name=joint, contents=list(style), overrides=style))
    return rrb.Grid(*views, grid_columns=3, name="by joint")


def _draw(stream: rr.RecordingStream, path: str, hz: float, lines: Lines) -> None:
    for name, joints in lines.items():
        for joint, values in joints.items():
            place, rows = f"{path}{_path(name, joint)}", np.flatnonzero(np.isfinite(values))
            times = [rr.TimeColumn("frame_index", sequence=rows), rr.TimeColumn("timestamp", duration=rows / hz)]
            stream.send_columns(place, times, rr.Scalars.columns(scalars=values[rows].astype(np.float64)))


def _pictures(stream: rr.RecordingStream, path: str, hz: float, pictures: Iterable[tuple[int, np.ndarray]]) -> None:
    """Pictures (H, W, C) uint8 with the numbers of their frames."""
    for number, picture in pictures:
        stream.set_time("frame_index", sequence=number)
        stream.set_time("timestamp", duration=number / hz)
        stream.log(path, rr.Image(picture).compress(jpeg_quality=_JPEG))


def _path(*parts: object) -> str:
    """A place in a recording: whatever a dataset calls a joint or a camera is one part of it."""
    return str(rr.new_entity_path([str(part) for part in parts]))


@contextmanager
def _recording(file: Path, title: str, shown: rrb.Container) -> Iterator[rr.RecordingStream]:
    """Write a file that is there, whole, once the block has ended well."""
    with new_file(file) as (_, temporary):
        stream = rr.RecordingStream("zk0")
        time = rrb.TimePanel(state="collapsed", timeline="timestamp")
        stream.save(temporary, rrb.Blueprint(shown, time, collapse_panels=True))
        stream.send_recording_name(title)
        yield stream
        stream.flush()
        stream.disconnect()
        temporary.chmod(0o644)
        temporary.replace(file)
