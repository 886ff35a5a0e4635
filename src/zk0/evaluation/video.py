"""Write a rollout as a small H.264 video that browsers play."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

_HOLD_LAST_FRAMES = 8


def write_video(frames: np.ndarray, path: Path, fps: int) -> None:
    """Write (T, H, W, 3) uint8 frames; the last one is held for a moment."""
    av.logging.set_libav_level(av.logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=fps, options={"crf": "26", "preset": "slow"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in [*frames, *[frames[-1]] * _HOLD_LAST_FRAMES]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())
