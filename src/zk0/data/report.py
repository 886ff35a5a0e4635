"""The data check report: what every source is, and what it was taken for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zk0.data.dataset import DatasetFolder
from zk0.data.formats import version_of
from zk0.data.keys import IMAGES
from zk0.data.survey import Survey
from zk0.suggestions import stretches


def report_of(survey: Survey) -> dict[str, Any]:
    """A source's entry in the report."""
    dataset, joints = survey.dataset, survey.joints
    rate = dataset.fps
    return {
        "name": survey.name,
        "source": survey.source,
        "revision": survey.revision,
        "format": version_of(dataset.info),
        "robot_type": dataset.robot_type,
        "episodes": len(survey.episodes),
        "frames": sum(stop - start for e, (start, stop) in dataset.rows.bounds.items() if e not in survey.left_out),
        "episodes_left_out": list(survey.left_out),
        "tasks": list(survey.tasks),
        "fps": {"recorded": rate, "every": survey.every, "taken": rate / survey.every},
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
        ("format", f"LeRobot {version_of(info)}"),
        ("robot", dataset.robot_type),
        ("recorded", f"{info.get('total_episodes', 0)} episodes, {info.get('total_frames', 0)} frames"),
        ("frames", f"{float(info['fps']):g} a second"),
        *(("camera", f"{_short(own)}, {info['features'][own].get('dtype')}") for own in dataset.cameras),
    ]


def lines_of(entry: dict[str, Any], known: Sequence[str] = ()) -> list[tuple[str, str]]:
    """A source's entry in words: what it is about, and what there is to say.

    Args:
        entry: Made by :func:`report_of`.
        known: The image features of all sources; those that this one lacks are named.
    """
    rate, joints = entry["fps"], entry["joints"]
    taken = f"{rate['recorded']:g} a second"
    if rate["every"] > 1:
        taken += f", one in {rate['every']} taken: {rate['taken']:g} a second"
    at = f" at {entry['revision'][:12]}" if entry["revision"] else ""
    lines = [
        ("source", f"{entry['source']}{at}, LeRobot {entry['format']}"),
        ("robot", entry["robot_type"]),
        ("recorded", f"{entry['episodes']} episodes, {entry['frames']} frames; {', '.join(entry['tasks'])}"),
        ("frames", taken),
    ]
    if entry["episodes_left_out"]:
        lines.insert(3, ("", f"without episodes {stretches(entry['episodes_left_out'])}, as params say"))
    lines += [("camera", _camera(name, one)) for name, one in entry["cameras"].items()]
    lines += [("camera", f"{_short(own)} is left out, as params say") for own in entry["left_out"]]
    lines += [
        ("camera", f"{_short(name)} is missing: hidden from the policy")
        for name in known
        if name not in entry["cameras"]
    ]
    converted = "" if joints["map"] is None else ", converted to degrees"
    lines.append(("joints", f"{joints['convention']}, by {joints['by']}{converted}"))
    lines += [("", reason) for reason in joints["reasons"]]
    return lines


def _camera(name: str, one: dict[str, Any]) -> str:
    _, height, width = one["shape"]
    renamed = "" if name == one["own"] else f" as {_short(name)}"
    return f"{_short(one['own'])}{renamed}, {height}x{width}"


def _short(camera: str) -> str:
    return camera.removeprefix(f"{IMAGES}.")


def markdown_of(entries: Sequence[dict[str, Any]]) -> str:
    """The report for people."""
    known = sorted({camera for entry in entries for camera in entry["cameras"]})
    parts = ["# Data check report", ""]
    for entry in entries:
        parts += [f"## {entry['name']}", "", "| | |", "| --- | --- |"]
        parts += [f"| {about} | {_cell(text)} |" for about, text in lines_of(entry, known)]
        parts.append("")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
