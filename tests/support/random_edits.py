"""Random edits of a recording's files, as hypothesis draws them, and an independent reading of what is left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
_ODD: list[Any] = [None, float("nan"), float("inf"), -1, 0, 1, 2, 0.5, 30, 10**12, -(2**63), "", "x", "../../x", True]
_ROWS = [STATE, ACTION, "episode_index", "frame_index", "task_index"]
_ABSURD = "{chunk_index:0999999d}"
_ODDER: list[Any] = [*_ODD, [], {}, [None], ["x"] * 6, [[1]], {"axes": None}, _ABSURD, 10**400, "\0"]

Draw = Callable[[st.SearchStrategy[Any]], Any]


def edit_randomly(root: Path, draw: Draw) -> str:
    """Make one edit below ``root``; says which."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    kind = draw(st.sampled_from(["bytes", "cut", "remove", "rename", "double", "json", "json", "cell", "cell", "rows"]))
    if kind in ("json", "cell", "rows"):
        suffixes = (".json", ".jsonl") if kind == "json" else (".parquet",)
        path = draw(st.sampled_from([file for file in files if file.suffix in suffixes]))
        said = {"json": _json, "cell": _cell, "rows": _rows}[kind](path, draw)
    else:
        path = draw(st.sampled_from(files))
        said = _file(path, kind, draw)
    return f"{kind} of {path.relative_to(root)}: {said}"


def _file(path: Path, kind: str, draw: Draw) -> str:
    content = bytearray(path.read_bytes())
    if kind == "bytes":
        start = draw(st.integers(0, max(len(content) - 1, 0)))
        new = draw(st.one_of(st.binary(min_size=1, max_size=8), st.integers(1, 400).map(bytes)))
        content[start : start + len(new)] = new
        path.write_bytes(content)
        return f"{len(new)} at {start}"
    if kind == "cut":
        length = draw(st.integers(0, len(content)))
        path.write_bytes(content[:length])
        return f"{length} of {len(content)} left"
    if kind == "remove":
        path.unlink()
        return ""
    names = ["file-001", "file-000", "episode_000001", "episode_000002", path.stem + ".bak"]
    target = path.with_stem(draw(st.sampled_from(names)))
    if target != path:
        (shutil.move if kind == "rename" else shutil.copy)(path, target)
    return target.name


def _json(path: Path, draw: Draw) -> str:
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = draw(st.integers(0, len(lines) - 1))
    content = json.loads(lines[number])
    node: Any = content
    trail = []
    while True:
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        trail.append(key)
        inner = node[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
            break
        node = inner
    value = draw(st.sampled_from(["delete", "double", *_ODDER]))
    if value == "delete":
        del node[key]
    elif value == "double" and isinstance(node, dict):
        node[f"{key}2"] = node[key]
    else:
        node[key] = value
    lines[number] = json.dumps(content)
    path.write_text("\n".join(lines))
    return f"{trail} = {str(value)[:40]}"


def _cell(path: Path, draw: Draw) -> str:
    table = pq.read_table(path)
    column = draw(st.sampled_from([name for name in table.column_names if not name.startswith("stats/")]))
    values = table.column(column).to_pylist()
    row = draw(st.integers(0, len(values) - 1))
    other = draw(st.integers(0, len(values) - 1))
    drop = draw(st.integers(0, 9)) == 0
    value = draw(st.sampled_from([values[other], *_ODD]))
    if isinstance(values[row], list) and values[row] and draw(st.booleans()):
        values[row] = [*values[row][:-1], value]
    else:
        values[row] = value
    try:
        array = pa.array(values, type=table.schema.field(column).type)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        try:
            array = pa.array(values)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            array = pa.array([str(one) for one in values])
    place = table.column_names.index(column)
    pq.write_table(table.remove_column(place) if drop else table.set_column(place, column, array), path)
    return f"{column} dropped" if drop else f"{column}, row {row} = {str(value)[:40]}"


def _rows(path: Path, draw: Draw) -> str:
    table = pq.read_table(path)
    rows = draw(st.lists(st.integers(0, len(table) - 1), min_size=0, max_size=len(table) + 2))
    if draw(st.booleans()):
        rows = [row for row in range(len(table)) if row not in rows[:3]]
    pq.write_table(table.take(pa.array(rows, pa.int64())), path)
    return f"{rows}"


Read = dict[int, dict[str, Any]]  # episode to states, actions, words and each camera's pictures


def read_v3(root: Path) -> Read:
    """What a v3 folder holds, read by pandas and PyAV alone."""
    info = json.loads((root / "meta/info.json").read_text())
    rows = pd.concat([pd.read_parquet(path, columns=_ROWS) for path in sorted((root / "data").rglob("*.parquet"))])
    rows = rows.sort_values(["episode_index", "frame_index"])
    known = pd.concat([_places(path) for path in sorted((root / "meta/episodes").rglob("*.parquet"))])
    tasks = pd.read_parquet(root / "meta/tasks.parquet")
    sentences = tasks.get("task", tasks.index)
    words = dict(zip(tasks["task_index"].tolist(), sentences, strict=True))
    videos: dict[Path, list[tuple[float, np.ndarray]]] = {}
    read: Read = {}
    for episode, part in rows.groupby("episode_index"):
        found = read.setdefault(int(episode), _numbers(part, words))
        (entry,) = known[known.episode_index == episode].to_dict("records")
        for camera in (name for name in info["features"] if name.startswith(IMAGES)):
            place = {name: int(entry[f"videos/{camera}/{name}"]) for name in ("chunk_index", "file_index")}
            path = root / info["video_path"].format(video_key=camera, **place)
            shown = videos.setdefault(path, []) or videos[path]
            shown.extend([] if shown else decoded(path))
            start = entry[f"videos/{camera}/from_timestamp"]
            found[camera] = [_nearest(shown, start + n / info["fps"]) for n in range(len(part))]
    return read


def read_v21(root: Path) -> Read:
    """What a v2.1 folder holds, read by pandas and PyAV alone."""
    info = json.loads((root / "meta/info.json").read_text())
    lines = filter(str.strip, (root / "meta/tasks.jsonl").read_text().split("\n"))
    words = {entry["task_index"]: entry["task"] for entry in map(json.loads, lines)}
    read: Read = {}
    for episode in range(info["total_episodes"]):
        place = {"episode_chunk": episode // (info.get("chunks_size") or 1000), "episode_index": episode}
        part = pd.read_parquet(root / info["data_path"].format(**place), columns=_ROWS)
        read[episode] = _numbers(part, words)
        for camera in (name for name in info["features"] if name.startswith(IMAGES)):
            shown = decoded(root / info["video_path"].format(**place, video_key=camera))
            read[episode][camera] = [_nearest(shown, n / info["fps"]) for n in range(len(part))]
    return read


def _places(path: Path) -> pd.DataFrame:
    """Where episodes are; statistics, which nobody trains on, may be damaged."""
    columns = [name for name in pq.read_schema(path).names if name == "episode_index" or name.startswith("videos/")]
    return pd.read_parquet(path, columns=columns)


def _numbers(part: pd.DataFrame, words: dict[int, str]) -> dict[str, Any]:
    vectors = {name: np.array(part[name].tolist(), np.float32) for name in (STATE, ACTION)}
    return {**vectors, "words": [words[task] for task in part["task_index"]]}


def decoded(path: Path) -> list[tuple[float, np.ndarray]]:
    """Every picture of a video and its time in seconds."""
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def _nearest(shown: list[tuple[float, np.ndarray]], time_s: float) -> np.ndarray:
    return min(shown, key=lambda one: abs(one[0] - time_s))[1]
