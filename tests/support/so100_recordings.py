"""Small SO-100 recordings in the formats, units and layouts that robot owners have.

Joint values are made by LeRobot's own code from whole steps of the motors, datasets by LeRobot's own
writer; format 2.1, which it no longer writes, is laid out here as its converter describes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zk0.so100 import ARM_JOINTS, FEATURE_NAMES, JOINTS

STATE, ACTION = "observation.state", "action"
SENTENCES = ("lift the cube", "drop the cube")
# A follower's ranges as calibration finds them, in steps of the motor; none is 2275, which is 200 degrees.
RANGES = {
    "shoulder_pan": (747, 3427),
    "shoulder_lift": (836, 3201),
    "elbow_flex": (914, 3120),
    "wrist_flex": (930, 3255),
    "wrist_roll": (0, 4095),
    "gripper": (2020, 3480),
}


def calibration_file(path: Path, ranges: Mapping[str, tuple[int, int]] = RANGES, **inverted: int) -> Path:
    """A calibration file as LeRobot saves it."""
    content = {
        joint: {
            "id": number,
            "drive_mode": inverted.get(joint, 0),
            "homing_offset": -100 * number,
            "range_min": low,
            "range_max": high,
        }
        for number, (joint, (low, high)) in enumerate(ranges.items(), start=1)
    }
    path.write_text(json.dumps(content, indent=4))
    return path


def motor_steps(frames: int, seed: int = 0, ranges: Mapping[str, tuple[int, int]] = RANGES) -> np.ndarray:
    """(N, 6) positions of an arm that wanders through its middle, in steps."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.integers(-45, 46, (frames, len(JOINTS))), axis=0)
    low, high = np.array([ranges[joint] for joint in JOINTS]).T
    start = low + (high - low) * rng.uniform(0.3, 0.7, len(JOINTS))
    return np.clip(np.rint(start + walk), low, high).astype(int)


def as_lerobot(
    steps: np.ndarray, mode: str, ranges: Mapping[str, tuple[int, int]] = RANGES, **inverted: int
) -> np.ndarray:
    """(N, 6) float32 values that LeRobot's motor bus makes of steps.

    Args:
        steps: (N, 6).
        mode: ``degrees`` or ``range_m100_100``.
        ranges: Of the calibration.
        inverted: Joint to 1 where the calibration turns its direction round.
    """
    from lerobot.motors import Motor, MotorCalibration, MotorNormMode
    from lerobot.motors.feetech import FeetechMotorsBus

    bus = FeetechMotorsBus.__new__(FeetechMotorsBus)  # without a port: nothing is connected
    modes = {joint: MotorNormMode(mode) for joint in ARM_JOINTS} | {"gripper": MotorNormMode.RANGE_0_100}
    bus.motors = {joint: Motor(n, "sts3215", modes[joint]) for n, joint in enumerate(JOINTS, start=1)}
    bus.calibration = {
        joint: MotorCalibration(n, inverted.get(joint, 0), 0, *ranges[joint]) for n, joint in enumerate(JOINTS, start=1)
    }
    bus._id_to_name_dict = {motor.id: joint for joint, motor in bus.motors.items()}
    bus._id_to_model_dict = {motor.id: motor.model for motor in bus.motors.values()}
    rows = [bus._normalize(dict(enumerate(row.tolist(), start=1))) for row in steps]
    return np.array([[row[n] for n in range(1, len(JOINTS) + 1)] for row in rows], dtype=np.float32)


def as_old_lerobot(steps: np.ndarray) -> np.ndarray:
    """(N, 6) float32 values as LeRobot made them of steps before June 2025, the arm hanging about the same middle."""
    degrees = (steps[:, :5] - 2048).astype(np.float32) / 2048 * 180
    degrees[:, 1] = 90 - degrees[:, 1]
    degrees[:, 2] = 90 + degrees[:, 2]
    gripper = (steps[:, 5:] - 2020).astype(np.float32) / (3480 - 2020) * 100
    return np.concatenate([degrees, gripper], axis=1)


def pictures(frames: int, seed: int, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """(N, H, W, 3) uint8 of a textured table that moves, each frame unlike every other."""
    rng = np.random.default_rng(seed)
    table = np.kron(rng.integers(40, 220, (size[0] // 8, size[1] // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    return np.stack([np.roll(table, (3 * row, 2 * row), (0, 1)) for row in range(frames)])


Episodes = Sequence[np.ndarray]


def write_v3(
    folder: Path,
    episodes: Episodes,
    *,
    cameras: Mapping[str, tuple[int, int]] | Sequence[str] = ("top", "wrist"),
    fps: int = 10,
    robot_type: str = "so101_follower",
    names: Sequence[str] = FEATURE_NAMES,
    info: Mapping[str, Any] | None = None,
    use_videos: bool = True,
) -> Path:
    """A v3 dataset by LeRobot's own writer.

    Args:
        folder: Made.
        episodes: The states of each, (N, 6); an action is the next state.
        cameras: Names, or names and (H, W).
        fps: Frames per second.
        robot_type: As noted in it.
        names: Of the joints.
        info: Of the vector features.
        use_videos: Else pictures lie in the tables.
    """
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    sizes = dict(cameras) if isinstance(cameras, Mapping) else dict.fromkeys(cameras, (32, 32))
    vector: dict[str, Any] = {"dtype": "float32", "shape": (len(names),), "names": list(names)}
    if info:
        vector["info"] = dict(info)
    kind = "video" if use_videos else "image"
    features = {ACTION: vector, STATE: dict(vector)} | {
        f"observation.images.{name}": {"dtype": kind, "shape": (*size, 3), "names": ["height", "width", "channels"]}
        for name, size in sizes.items()
    }
    dataset = LeRobotDataset.create(
        f"owner/{folder.name}",
        fps,
        features,
        root=folder,
        robot_type=robot_type,
        use_videos=use_videos,
        video_backend="pyav",
        rgb_encoder=RGBEncoderConfig(vcodec="h264", g=2, crf=18),
    )
    for number, states in enumerate(episodes):
        shown = {name: pictures(len(states), 10 * number + k, size) for k, (name, size) in enumerate(sizes.items())}
        for row, (state, action) in enumerate(zip(states, next_states(states), strict=True)):
            frame: dict[str, Any] = {STATE: state, ACTION: action, "task": SENTENCES[number % len(SENTENCES)]}
            dataset.add_frame(frame | {f"observation.images.{name}": shown[name][row] for name in sizes})
        dataset.save_episode(parallel_encoding=False)
    dataset.finalize()
    return folder


def next_states(states: np.ndarray) -> np.ndarray:
    """What the recordings here command: to be where the arm is a frame later."""
    return np.concatenate([states[1:], states[-1:]])


def write_v21(
    folder: Path,
    episodes: Episodes,
    *,
    cameras: Sequence[str] = ("top", "wrist"),
    fps: int = 30,
    robot_type: str = "so100",
    names: Sequence[str] = tuple(f"main_{joint}" for joint in JOINTS),
    codec: str = "h264",
    change: Callable[[dict[str, Any]], Any] = lambda info: None,
) -> Path:
    """A v2.1 dataset as LeRobot wrote it until September 2025: a table and a video for each episode.

    Args:
        folder: Made.
        episodes: The states of each, (N, 6); an action is the next state.
        cameras: Names.
        fps: Frames per second.
        robot_type: As noted in it.
        names: Of the joints.
        codec: ``h264``, or ``libsvtav1`` as LeRobot's recorder had it by default.
        change: What is to be changed in its info.
    """
    keys = [f"observation.images.{name}" for name in cameras]
    vector = {"dtype": "float32", "shape": [len(names)], "names": list(names)}
    scalars = {
        "timestamp": "float32",
        "frame_index": "int64",
        "episode_index": "int64",
        "index": "int64",
        "task_index": "int64",
    }
    video = {
        "dtype": "video",
        "shape": [32, 32, 3],
        "names": ["height", "width", "channels"],
        "info": {"video.fps": float(fps), "video.height": 32, "video.width": 32, "video.codec": codec},
    }
    frames = sum(map(len, episodes))
    info: dict[str, Any] = {
        "codebase_version": "v2.1",
        "robot_type": robot_type,
        "total_episodes": len(episodes),
        "total_frames": frames,
        "total_tasks": len(SENTENCES),
        "total_videos": len(episodes) * len(cameras),
        "total_chunks": 1,
        "chunks_size": 1000,
        "fps": fps,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {ACTION: vector, STATE: dict(vector)}
        | dict.fromkeys(keys, video)
        | {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in scalars.items()},
    }
    change(info)
    lines: dict[str, list[dict[str, Any]]] = {"tasks": [], "episodes": [], "episodes_stats": []}
    lines["tasks"] = [{"task_index": index, "task": task} for index, task in enumerate(SENTENCES)]
    first = 0
    for number, states in enumerate(episodes):
        count, task = len(states), number % len(SENTENCES)
        content = {
            ACTION: next_states(states),
            STATE: states,
            "timestamp": np.arange(count, dtype=np.float32) / fps,
            "frame_index": np.arange(count),
            "episode_index": np.full(count, number),
            "index": np.arange(first, first + count),
            "task_index": np.full(count, task),
        }
        first += count
        table = {name: pa.array(values.tolist(), type=_arrow(name, scalars)) for name, values in content.items()}
        place = {"episode_chunk": 0, "episode_index": number}
        path = folder / info["data_path"].format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), path)
        for k, key in enumerate(keys):
            shown = pictures(count, 10 * number + k)
            _write_video(folder / info["video_path"].format(**place, video_key=key), shown, fps, codec)
        lines["episodes"].append({"episode_index": number, "tasks": [SENTENCES[task]], "length": count})
        stats = {name: _stats(np.asarray(values, dtype=float).reshape(count, -1)) for name, values in content.items()}
        seen = {"min": 0.0, "max": 1.0, "mean": 0.5, "std": 0.2}
        stats |= {key: {s: [[[v]]] * 3 for s, v in seen.items()} | {"count": [count]} for key in keys}
        lines["episodes_stats"].append({"episode_index": number, "stats": stats})
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "info.json").write_text(json.dumps(info, indent=4))
    for name, entries in lines.items():
        (folder / "meta" / f"{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def _arrow(name: str, scalars: Mapping[str, str]) -> pa.DataType:
    if name in scalars:
        return {"float32": pa.float32(), "int64": pa.int64()}[scalars[name]]
    return pa.list_(pa.float32(), len(JOINTS))


def _stats(values: np.ndarray) -> dict[str, list[float]]:
    found = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    return {name: value.tolist() for name, value in found.items()} | {"count": [len(values)]}


def _write_video(path: Path, frames: np.ndarray, fps: int, codec: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"g": "2", "crf": "30", "preset": "12"} if codec == "libsvtav1" else {"g": "2", "crf": "18"}
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its content: to show that none was touched."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
