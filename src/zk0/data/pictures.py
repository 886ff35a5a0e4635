"""Every picture of a recording's video, decoded once, in the file's order, before anything trains on it.

Training reads a video in pieces, from the nearest key frame on, and libav mends what is broken by
what it saw before. Here a file is read from its beginning to its end and nothing is mended: what
passes can be decoded anywhere. What was found sound is remembered in the project's cache by each
file's path, size, time and inode and by what is taken from it: a second time costs a look at the
file system.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from zk0.console import progress_bar
from zk0.data.dataset import DatasetFolder
from zk0.data.layout import require_file
from zk0.digests import digest_parts
from zk0.errors import DataError
from zk0.files import write_json

_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}

Frame = tuple[int, int]  # episode, and the frame's place in it
Wanted = Sequence[tuple[float, Frame]]

_MEND = "restore the file from the robot's disk or a backup, or record that episode again"
MEMO = Path(".cache/decoded")
See = Callable[[str, int, int, np.ndarray], None]  # camera, episode, frame, and the picture, (H, W, 3) uint8


def decode_strictly(
    root: Path, path: Path, camera: str, size: tuple[int, int], wanted: Wanted, tolerance_s: float
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Decode one video file of a camera, and yield every picture that an episode takes from it.

    Args:
        root: The dataset's folder.
        path: The file.
        camera: For messages.
        size: (H, W) that was stated.
        wanted: Seconds in the file, ascending, and the frame whose picture should lie there.
        tolerance_s: How far a picture may be from that.

    Yields:
        Episode, frame (0 for the episode's first) and picture, (H, W, 3) uint8 RGB, by the time in the file.

    Raises:
        DataError: The file cannot be opened, has pictures of another size than meta/info.json says, lacks a picture,
            or one of its pictures cannot be decoded. Names file, episode and frame.
    """
    first = _words(wanted[0][1])
    with _opened(root, path, first) as (container, stream):
        _check_size(size, camera, path, (stream.height, stream.width), wanted[0][1])
        left = _shown(path, wanted, _picture_times(path, container, stream), tolerance_s)
    with _opened(root, path, first) as (container, stream):
        for pts, picture in _decoded(path, container, stream, left):
            for episode, frame in left.pop(pts):
                _check_size(size, camera, path, picture.shape[:2], (episode, frame))
                yield episode, frame, picture
            if not left:
                return
    raise DataError(f"{path}: {_next_of(left)} cannot be decoded: the decoder left it out; {_MEND}")


def _wanted(dataset: DatasetFolder, camera: str, path: Path) -> list[tuple[float, Frame]]:
    """Seconds in the file and the frame whose picture lies there, in order of time."""
    rows = dataset.rows
    wanted = [
        (start_s + float(time_s), (episode, frame))
        for episode, start_s, _ in dataset.files[camera, path]
        if episode in rows.bounds
        for frame, time_s in enumerate(rows.timestamps[slice(*rows.bounds[episode])])
    ]
    if not wanted:
        raise DataError(f"{path}: no episode of {dataset.repo_id} takes a picture of {camera} from it")
    return sorted(wanted)


@contextmanager
def _opened(root: Path, path: Path, first: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A video file whose decoder hides nothing."""
    path = require_file(root, path.relative_to(root))
    av.logging.set_libav_level(av.logging.PANIC)  # what it would print is in the error
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path}: holds no video, so {first} has no picture; {_MEND}")
            stream = container.streams.video[0]
            if stream.codec_context is None or not stream.time_base:
                raise DataError(f"{path}: is in a codec that cannot be decoded, so {first} has no picture; {_MEND}")
            stream.codec_context.options = _STRICT
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.error.FFmpegError, OSError, ValueError) as error:  # ValueError: words in it that are no text
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read as a video, from {first} on: {reason}; {_MEND}") from error


def _picture_times(path: Path, container: InputContainer, stream: VideoStream) -> list[tuple[float, int]]:
    """Seconds and time stamp of every picture in the file, in order; nothing is decoded."""
    base = float(stream.time_base or 0)
    times = [
        (packet.pts * base, packet.pts) for packet in container.demux(stream) if packet.pts is not None and packet.size
    ]
    if not times:
        raise DataError(f"{path}: holds no picture; {_MEND}")
    return sorted(times)


def _shown(path: Path, wanted: Wanted, times: list[tuple[float, int]], tolerance_s: float) -> dict[int, list[Frame]]:
    """Time stamp of each picture to the frames that it belongs to: the nearest, as training takes it."""
    seconds = [time_s for time_s, _ in times]
    shown: dict[int, list[Frame]] = {}
    for time_s, frame in wanted:
        after = bisect_left(seconds, time_s)
        nearest = min((i for i in (after - 1, after) if 0 <= i < len(seconds)), key=lambda i: abs(seconds[i] - time_s))
        if abs(seconds[nearest] - time_s) > tolerance_s:
            raise DataError(
                f"{path}: has no picture for episode {frame[0]}, frame {frame[1]}, at {time_s:.3f} s; the nearest is "
                f"at {seconds[nearest]:.3f} s; {_MEND}"
            )
        shown.setdefault(times[nearest][1], []).append(frame)
    return shown


def _decoded(
    path: Path, container: InputContainer, stream: VideoStream, left: dict[int, list[Frame]]
) -> Iterator[tuple[int, np.ndarray]]:
    """Time stamp and picture of those in ``left``."""
    try:
        for frame in container.decode(stream):
            if frame.pts not in left:
                continue
            if frame.is_corrupt:
                raise DataError(f"{path}: {_next_of({frame.pts: left[frame.pts]})} is damaged; {_MEND}")
            yield frame.pts, frame.to_ndarray(format="rgb24")
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: {_next_of(left)} cannot be decoded: {reason}; {_MEND}") from error


def _words(frame: Frame) -> str:
    return f"episode {frame[0]}, frame {frame[1]}"


def _next_of(left: dict[int, list[Frame]]) -> str:
    """The first frame that has not been decoded."""
    episode, frame = left[min(left)][0]
    return f"the picture of episode {episode}, frame {frame},"


def _check_size(expected: tuple[int, ...], camera: str, path: Path, size: tuple[int, ...], frame: Frame) -> None:
    if tuple(size) != expected:
        raise DataError(
            f"{path}: pictures of {camera} are {size[0]}x{size[1]} (height x width) at episode {frame[0]}, frame "
            f"{frame[1]}, and meta/info.json says {expected[0]}x{expected[1]}; correct the feature's shape there, or "
            "put the right video in its place"
        )


def check_pictures(dataset: DatasetFolder, cameras: Iterable[str], root: Path, see: See | None = None) -> None:
    """Decode every picture of some cameras that was not decoded before; for an onlooker, every one.

    Args:
        dataset: The folder; its metadata and tables have been checked.
        cameras: The dataset's own that are used.
        root: Project folder, which holds the cache.
        see: Is shown each picture as it passes by.

    Raises:
        DataError: See :func:`decode_strictly`.
    """
    wanted = set(cameras)
    notes = {
        (camera, path): root / MEMO / _key(dataset, camera, path) for camera, path in dataset.files if camera in wanted
    }
    todo = {place: note for place, note in notes.items() if see or not note.exists()}
    if not todo:
        return
    counts = {place: _frames(dataset, *place) for place in todo}
    with progress_bar() as bar:
        line = bar.add_task(f"decoding every picture of {dataset.repo_id}", total=sum(counts.values()))
        for (camera, path), note in todo.items():
            seen = set()
            size, taken = dataset.image_shape(camera)[1:], _wanted(dataset, camera, path)
            for episode, frame, picture in decode_strictly(
                dataset.root, path, camera, size, taken, dataset.tolerance_s
            ):
                seen.add((episode, frame))
                if see:
                    see(camera, episode, frame, picture)
                bar.advance(line)
            if len(seen) != counts[camera, path]:
                raise DataError(f"{path}: {counts[camera, path]} pictures were expected, and {len(seen)} are there")
            write_json(note, {"file": str(path), "pictures": len(seen)})


def _frames(dataset: DatasetFolder, camera: str, path: Path) -> int:
    return sum(dataset.known.lengths[episode] for episode, _, _ in dataset.files[camera, path])


def _key(dataset: DatasetFolder, camera: str, path: Path) -> str:
    stat = path.stat()
    taken = [(*stretch, dataset.known.lengths[stretch[0]]) for stretch in dataset.files[camera, path]]
    said = (stat.st_size, stat.st_mtime_ns, stat.st_ino, dataset.fps, dataset.image_shape(camera), taken)
    return f"{digest_parts({str(path.resolve()): repr(said).encode()})}.json"
