"""Pictures that show nothing, stand still, jump, or are out of focus.

While a recording's pictures pass by once, small grey ones, their detail, and three to look at are kept of each episode.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from zk0.data.quality.remarks import PEERS, Numbers, Remark
from zk0.words import stretches

DARK_LEVEL = 12  # of 255; a lens under its cap gives 0 to 8, a room at night 15 and more
BLANK_LEVELS = 3  # from the lightest to the darkest block: one colour, as of a camera without a signal
NOTHING_FRAMES = 3  # one such picture is a cut
FROZEN_LEVELS = 2  # what encoding alone changes in the mean of a block of pixels
FROZEN_S = 1.0  # a hiccup of the USB bus is shorter, and seldom seen by a policy
FROZEN_DEG = 15.0  # of pan, lift and elbow together: that moves an arm by its own width
CUT_LEVELS = 25.0  # mean over the picture; half of what black after a lit room makes
CUT_RATIO = 6.0  # times the changes around it: a wrist camera that sweeps changes all the time
CUT_USUAL = 3.0  # times what nine of ten changes of the episode stay below: near a coloured thing a wrist camera leaps
BLUR_SHARE = 0.75  # of the camera's usual detail
_CARRIES = 3  # joints whose movement carries the arm along: pan, lift, elbow


def looks(numbers: Numbers, sketches: Mapping[str, Sketch]) -> list[Remark]:
    """All remarks on what the cameras gave.

    Args:
        numbers: What the arm did meanwhile.
        sketches: Camera's name to its pictures.
    """
    found = []
    for camera, sketch in sketches.items():
        for episode, grey in sketch.grey.items():
            nothing = _nothing(camera, episode, grey)
            found += nothing or _cut(camera, episode, grey)
        seen_nothing = {remark.episode for remark in found if remark.kind in ("dark", "blank")}
        found += _frozen(camera, numbers, {e: g for e, g in sketch.grey.items() if e not in seen_nothing})
        found += _blurred(camera, {e: d for e, d in sketch.detail.items() if e not in seen_nothing})
    return found


def _nothing(camera: str, episode: int, grey: np.ndarray) -> list[Remark]:
    """Black pictures, and pictures of one colour."""
    blocks = grey.reshape(len(grey), -1)
    dark = blocks.mean(axis=1) < DARK_LEVEL
    blank = (np.ptp(blocks, axis=1) <= BLANK_LEVELS) & ~dark
    found = []
    if (count := int(dark.sum())) >= NOTHING_FRAMES or count == len(grey):
        text = f"{camera} is dark in {count} of {len(grey)} pictures, from frame {int(np.argmax(dark))}"
        found.append(Remark("dark", episode, text, grave=True))
    if (count := int(blank.sum())) >= NOTHING_FRAMES or count == len(grey):
        text = f"{camera} is of one colour in {count} of {len(grey)} pictures, from frame {int(np.argmax(blank))}"
        found.append(Remark("blank", episode, text, grave=True))
    return found


def _cut(camera: str, episode: int, grey: np.ndarray) -> list[Remark]:
    """Pictures that are suddenly of something else."""
    if len(grey) < 4:
        return []
    blocks = grey.reshape(len(grey), -1).astype(np.int16)
    changes = np.abs(np.diff(blocks, axis=0)).mean(axis=1)
    around = np.pad(changes, 2)
    beside = np.stack([around[shift : shift + len(changes)] for shift in (0, 1, 3, 4)])
    calm = np.sort(beside, axis=0)[2]  # a single wrong picture changes it twice: one such neighbour is not looked at
    least = max(CUT_LEVELS, CUT_USUAL * float(np.quantile(changes, 0.9)))
    wrong = changes > np.maximum(least, CUT_RATIO * calm)
    if not wrong.any():
        return []
    frame = int(np.argmax(changes * wrong)) + 1
    text = f"{camera} shows something else from one picture to the next at frame {frame}"
    return [Remark("cut", episode, text, grave=True)]


def _frozen(camera: str, numbers: Numbers, pictures: Mapping[int, np.ndarray]) -> list[Remark]:
    """Stretches in which the arm moves and no part of the picture does."""
    found = []
    for episode, grey in pictures.items():
        start, stop = _unmoved(grey, numbers.states[episode], numbers.fps)
        if stop > start:
            text = f"{camera} stands still for {(stop - start) / numbers.fps:.1f} s, from frame {start}, while the "
            found.append(Remark("frozen", episode, f"{text}arm moves", grave=True))
    if len(pictures) >= PEERS and len(found) > len(pictures) / 2:
        text = f"{camera} often stands still while the arm moves ({stretches(r.episode or 0 for r in found)}): it "
        return [Remark("frozen", None, f"{text}freezes, or does not see the arm")]
    return found


def _unmoved(grey: np.ndarray, states: np.ndarray, fps: float) -> tuple[int, int]:
    """Longest stretch that looks like its first picture although the arm was carried along; (0, 0) if none."""
    blocks, start, best = grey.reshape(len(grey), -1).astype(np.int16), 0, (0, 0)
    for frame in range(1, len(blocks) + 1):
        if frame < len(blocks) and np.abs(blocks[frame] - blocks[start]).max() <= FROZEN_LEVELS:
            continue
        moved = np.ptp(states[start:frame, :_CARRIES], axis=0).sum()
        if (frame - start) / fps >= FROZEN_S and moved >= FROZEN_DEG and frame - start > best[1] - best[0]:
            best = (start, frame)
        start = frame
    return best


def _blurred(camera: str, detail: Mapping[int, list[float]]) -> list[Remark]:
    """Episodes with much less fine detail than the camera's others."""
    own = {episode: float(np.median(shares)) for episode, shares in detail.items()}
    if len(own) < PEERS:
        return []
    usual = float(np.median(list(own.values())))
    return [
        Remark("blurred", episode, f"{camera} has {share / usual:.0%} of the fine detail of the other episodes")
        for episode, share in own.items()
        if share < BLUR_SHARE * usual
    ]


GRID = (16, 12)  # columns and rows; 192 bytes a picture, so that an hour of two cameras is 40 MB
DETAIL_EVERY_S = 0.5
THUMB_WIDTH, MANY_WIDTH, MANY = 160, 96, 100  # pixels; narrower where there are more than so many episodes
_FAR = 4  # pixels over which a sharp edge is as steep as over one


@dataclass
class Sketch:
    """The pictures of one camera, episode by episode.

    Attributes:
        grey: Episode to (T, 12, 16) uint8, each value the mean of a block of the picture.
        detail: Episode to the share of fine detail in some of its pictures: 1 for hard edges, 0.25 for none.
        thumbs: Episode to its first, middle and last picture as JPEG.
    """

    grey: dict[int, np.ndarray] = field(default_factory=dict)
    detail: dict[int, list[float]] = field(default_factory=dict)
    thumbs: dict[int, dict[int, bytes]] = field(default_factory=dict)


@dataclass
class Sketches:
    """Watches pictures as they are decoded; see :func:`zk0.data.pictures.check_pictures`.

    Attributes:
        lengths: Episode to its number of frames.
        fps: Frames a second.
        cameras: Camera to what was kept of it.
    """

    lengths: Mapping[int, int]
    fps: float
    cameras: dict[str, Sketch] = field(default_factory=dict)

    def see(self, camera: str, episode: int, frame: int, picture: np.ndarray) -> None:
        """Keep what is wanted of one picture, (H, W, 3) uint8."""
        sketch, length = self.cameras.setdefault(camera, Sketch()), self.lengths[episode]
        green = Image.fromarray(np.ascontiguousarray(picture[..., 1]))  # nearly luminance, and costs nothing
        rows = sketch.grey.setdefault(episode, np.zeros((length, GRID[1], GRID[0]), np.uint8))
        rows[frame] = np.asarray(green.resize(GRID, Image.Resampling.BOX))
        if frame % max(1, round(DETAIL_EVERY_S * self.fps)) == 0:
            sketch.detail.setdefault(episode, []).append(_detail(np.asarray(green, dtype=np.int16)))
        if frame in (0, length // 2, length - 1):
            width = THUMB_WIDTH if len(self.lengths) <= MANY else MANY_WIDTH
            sketch.thumbs.setdefault(episode, {})[frame] = _jpeg(picture, width)


def _detail(grey: np.ndarray) -> float:
    """How much of the differences over four pixels is there over one: a blur leaves slopes, a quarter each."""
    if min(grey.shape) <= _FAR:
        return 1.0
    near = np.abs(np.diff(grey, axis=1)).mean() + np.abs(np.diff(grey, axis=0)).mean()
    far = np.abs(grey[:, _FAR:] - grey[:, :-_FAR]).mean() + np.abs(grey[_FAR:] - grey[:-_FAR]).mean()
    return float(near / far) if far > 0.5 else 1.0  # a black picture is not blurred


def _jpeg(picture: np.ndarray, width: int) -> bytes:
    image = Image.fromarray(picture)
    image.thumbnail((width, width))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=72)
    return buffer.getvalue()
