"""What identifies an episode: a digest of its numbers and words, and one of its encoded video packets.

LeRobot v3 keeps many episodes in one video file and appends new ones by stream copy, so a file's
digest changes whenever a dataset grows. An episode's own packets show the same bytes, apart from the
parameter sets that a stream copy repeats among them (:mod:`zk0.data.parameter_sets`): what was found
out about an episode is still good when others were recorded, and is not once it was recorded again.
Packets are read but not decoded.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import xxhash

from zk0.data.dataset import DatasetFolder
from zk0.data.parameter_sets import ParameterSets
from zk0.errors import DataError
from zk0.files import read_json, write_json
from zk0.keys import new_digest

CLIPS = Path(".cache/clips")  # below a project's folder: what is known of the videos that its sites train on
_FORM = "2"  # raise it when a clip's digest is made in another way


def identity(dataset: DatasetFolder, episode: int, cameras: Iterable[str], memo: Path | None = None) -> str:
    """``MOTION.PICTURES``: BLAKE2b of an episode's states, actions and words, and of what it shows when.

    Args:
        dataset: The recording.
        episode: Index.
        cameras: Those that count, by the dataset's own names.
        memo: As for :func:`clip_digest`.

    Raises:
        DataError: As :func:`clip_digest`.
    """
    start, stop = dataset.rows.bounds[episode]
    shown = np.rint(dataset.rows.timestamps[start:stop] * float(dataset.info["fps"])).astype("<i8")
    pictures = new_digest(shown.tobytes())
    for camera in sorted(cameras):
        pictures.update(f"\0{camera}\0{clip_digest(dataset, episode, camera, memo)}".encode())
    return f"{dataset.episode_digest(episode)}.{pictures.hexdigest()}"


def motion_of(identity: str) -> str:
    """The first half: equal in copies that were encoded anew, or whose cameras have other names."""
    return identity.partition(".")[0]


def clip_digest(dataset: DatasetFolder, episode: int, camera: str, memo: Path | None = None) -> str:
    """BLAKE2b over the encoded packets of one episode and camera, in hex.

    One pass over a video file gives the digests of all its episodes. They are kept in the process,
    and in ``memo`` under the file's path, size, time and inode: a file that has not changed since
    is not opened again.

    Raises:
        DataError: The video is missing, cannot be read, or has no pictures of the episode.
    """
    path = dataset.span(episode, camera).path
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path}: video of episode {episode} is unreadable: {error}") from error
    seen = (str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)
    if (seen, memo) not in dataset.clips:
        dataset.clips[seen, memo] = _known(dataset, camera, path, seen, memo)
    digest = dataset.clips[seen, memo][episode]
    if not digest:
        raise DataError(f"{path}: has no pictures of episode {episode}; the file was cut off, restore or record it")
    return digest


def _known(
    dataset: DatasetFolder, camera: str, path: Path, seen: tuple[object, ...], memo: Path | None
) -> dict[int, str]:
    """The digests of a file's episodes: from the memo, or read and put there."""
    spans = dataset.files[camera, path]
    note = memo / f"{xxhash.xxh3_128_hexdigest(repr((_FORM, seen, spans)).encode())}.json" if memo else None
    if note is not None and note.exists():
        return {int(episode): str(digest) for episode, digest in read_json(note).items()}
    digests = _read(path, spans, 0.5 / float(dataset.info["fps"]))
    if note is not None:
        with suppress(OSError):  # only a memo: where nothing can be written, the file is read again
            write_json(note, {str(episode): digest for episode, digest in digests.items()})
    return digests


def _read(path: Path, spans: list[tuple[int, float, float]], margin_s: float) -> dict[int, str]:
    """Episode to the digest of its packets; empty where it has none. Episodes may show the same stretch."""
    stretches = sorted({(start, end) for _, start, end in spans})
    starts = np.array([start for start, _ in stretches]) - margin_s
    digests = [new_digest() for _ in stretches]
    told: list[bytes | None] = [None] * len(stretches)
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            codec = stream.codec_context
            sets = ParameterSets(codec.name, codec.extradata)
            for digest in digests:
                digest.update(f"{codec.name} {codec.width} {codec.height} {codec.pix_fmt}\0".encode())
            for packet in container.demux(stream):
                if packet.pts is None or packet.size == 0:
                    continue
                time_s, pictures = packet.pts * float(stream.time_base or 0), sets.pictures(bytes(packet))
                index = int(np.searchsorted(starts, time_s, side="right")) - 1
                if index >= 0 and time_s < stretches[index][1] - margin_s:
                    if sets.in_force != told[index]:
                        told[index] = sets.in_force
                        digests[index].update(sets.in_force)
                    digests[index].update(pictures)
    except (av.error.FFmpegError, IndexError) as error:
        raise DataError(f"{path}: video is unreadable: {error}") from error
    found = {
        stretch: "" if began is None else digest.hexdigest()
        for stretch, digest, began in zip(stretches, digests, told, strict=True)
    }
    return {episode: found[start, end] for episode, start, end in spans}
