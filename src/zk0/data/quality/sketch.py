"""What is kept of a recording's pictures while they pass by once: small grey ones, detail, and three to look at."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

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
    """Watches pictures as they are decoded; see :func:`zk0.data.pictures.pictures`.

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
