"""A recording as a person makes one with a leader arm, in numbers and pictures, to be spoiled on purpose.

The arm rests folded, moves over an object that lies somewhere else each time, grips it, puts it down and rests again.
Positions trail their commands, sag under load and come in whole steps of the motor; the gripper stays open by the
object's width. The picture shows arm and object from above, with noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from zk0.data.quality.looks import Sketch, Sketches
from zk0.data.quality.remarks import Numbers
from zk0.so100 import FEATURE_NAMES

FPS = 15
STEP_DEG = 360 / 4095
REST = np.array([0.0, -95.0, 92.0, 55.0, 0.0, 2.0])
SENTENCE = "put the cube into the bowl"
SIZE = 96


@dataclass
class Take:
    """One episode: (T, 6) states and actions, (T, H, W, 3) pictures, and what was said of it."""

    states: np.ndarray
    actions: np.ndarray
    pictures: np.ndarray
    sentence: str = SENTENCE


@dataclass
class Takes:
    """A recording, episode by episode."""

    takes: list[Take] = field(default_factory=list)

    @property
    def numbers(self) -> Numbers:
        """As the judging takes them."""
        return Numbers(
            FPS,
            {e: take.states for e, take in enumerate(self.takes)},
            {e: take.actions for e, take in enumerate(self.takes)},
            {e: take.sentence for e, take in enumerate(self.takes)},
        )

    @property
    def sketches(self) -> dict[str, Sketch]:
        """The pictures as they are kept."""
        kept = Sketches({e: len(take.states) for e, take in enumerate(self.takes)}, FPS)
        for episode, take in enumerate(self.takes):
            for frame, picture in enumerate(take.pictures):
                kept.see("top", episode, frame, picture)
        return kept.cameras

    def write(self, folder: Path) -> Path:
        """As a LeRobot dataset, by LeRobot's own writer."""
        from lerobot.configs.video import RGBEncoderConfig
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        vector = {"dtype": "float32", "shape": (6,), "names": list(FEATURE_NAMES)}
        image = {"dtype": "video", "shape": (SIZE, SIZE, 3), "names": ["height", "width", "channels"]}
        features = {"action": vector, "observation.state": dict(vector), "observation.images.top": image}
        made = LeRobotDataset.create(
            f"owner/{folder.name}",
            FPS,
            features,
            root=folder,
            robot_type="so101_follower",
            video_backend="pyav",
            rgb_encoder=RGBEncoderConfig(vcodec="h264", g=2, crf=23),
        )
        for take in self.takes:
            for state, action, picture in zip(take.states, take.actions, take.pictures, strict=True):
                frame = {"observation.state": state, "action": action, "observation.images.top": picture}
                made.add_frame(frame | {"task": take.sentence})
            made.save_episode(parallel_encoding=False)
        made.finalize()
        return folder


def record(episodes: int = 10, seed: int = 0) -> Takes:
    """A sound recording; its arrays are the caller's own."""
    return Takes([Take(t.states.copy(), t.actions.copy(), t.pictures.copy()) for t in _record(episodes, seed)])


@cache
def _record(episodes: int, seed: int) -> list[Take]:
    rng = np.random.default_rng(seed)
    return [take(rng, (rng.uniform(-45, 45), rng.uniform(0.3, 1.0))) for _ in range(episodes)]


def take(rng: np.random.Generator, place: tuple[float, float], fps: int = FPS, pictured: bool = True) -> Take:
    """One episode with the object at an angle and a reach of 0 to 1."""
    angle, reach = place
    over = np.array([angle, -40 + 55 * reach, 60 - 45 * reach, 40.0, rng.uniform(-15, 15), 45.0])
    down = over + np.array([0, 14, -6, 10, 0, 0])
    bowl = np.array([60.0, -20.0, 35.0, 50.0, 0.0, 8.0]) + np.append(rng.normal(0, 3, 5), 0)
    open_, closed = bowl.copy(), down.copy()
    open_[5], closed[5] = 48.0, 8.0
    rest = REST + np.append(rng.normal(0, 1.5, 5), 0)
    ways = [rest, rest, over, down, closed, closed, over * [1, 1, 1, 1, 1, 0] + [0, 0, 0, 0, 0, 8], bowl, open_]
    ways += [rest, rest]
    seconds = np.array([0.3, 1.1, 0.6, 0.4, 0.3, 0.6, 1.2, 0.4, 1.2, 0.3]) * rng.uniform(0.8, 1.3)
    parts = []
    for start, stop, lasts in zip(ways[:-1], ways[1:], seconds, strict=True):
        t = np.linspace(0, 1, max(2, round(lasts * fps)), endpoint=False)[:, None]
        parts.append(start + (stop - start) * (10 * t**3 - 15 * t**4 + 6 * t**5))  # minimum jerk
    told = np.concatenate(parts)
    tremble = np.cumsum(rng.normal(0, 0.12, told.shape), axis=0)
    told[:, :5] += (tremble - np.linspace(0, 1, len(told))[:, None] * tremble[-1])[:, :5]
    done = follow(told, fps)
    carried = np.maximum(done[:, 5], 22.0) if closed[5] < 22 else done[:, 5]
    held = (np.arange(len(done)) > len(np.concatenate(parts[:3]))) & (
        np.arange(len(done)) < len(np.concatenate(parts[:8]))
    )
    done[:, 5] = np.where(held, carried, done[:, 5])
    done[:, :5] = np.rint(done[:, :5] / STEP_DEG) * STEP_DEG
    states, actions = done.astype(np.float32), told.astype(np.float32)
    shown = draw(states, place, rng) if pictured else np.zeros((0, SIZE, SIZE, 3), np.uint8)
    return Take(states, actions, shown)


def follow(told: np.ndarray, fps: int, late_s: float = 0.12) -> np.ndarray:
    """Where an arm goes that is told so: late, soft, and sagging."""
    lag = round(late_s * fps)
    late = np.concatenate([np.repeat(told[:1], lag, axis=0), told[: len(told) - lag]])
    done = late.copy()
    for row in range(1, len(done)):
        done[row] = done[row - 1] + 0.7 * (late[row] - done[row - 1])
    return done + np.array([0, 1.8, -1.2, 0.4, 0, 0])


def draw(states: np.ndarray, place: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """(T, H, W, 3) uint8 of a table from above."""
    table = np.kron(np.random.default_rng(7).integers(95, 150, (12, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    shown = []
    for state in states:
        image = Image.fromarray(table)
        pen = ImageDraw.Draw(image)
        spot = _spot(*place)
        pen.rectangle([spot[0] - 5, spot[1] - 5, spot[0] + 5, spot[1] + 5], fill=(200, 40, 40))
        reach = 0.15 + (state[1] + 95) / 180
        tip = _spot(float(state[0]), float(reach))
        pen.line([(48, 94), tip], fill=(235, 200, 60), width=9)
        width = 2 + float(state[5]) / 12
        pen.ellipse([tip[0] - width, tip[1] - width, tip[0] + width, tip[1] + width], outline=(30, 30, 30), width=2)
        noisy = np.asarray(image, dtype=np.int16) + rng.integers(-3, 4, (SIZE, SIZE, 1))
        shown.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return np.stack(shown)


def _spot(angle: float, reach: float) -> tuple[float, float]:
    turned = np.deg2rad(angle)
    return 48 + 70 * reach * float(np.sin(turned)), 94 - 70 * reach * float(np.cos(turned))
