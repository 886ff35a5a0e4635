"""What identifies an episode's pictures: a digest of its encoded video packets.

LeRobot v3 keeps many episodes in one video file and appends new ones by stream copy, so a file's
digest changes whenever a dataset grows. An episode's own packets stay the same bytes: what was
computed from its pictures is still good then, and is not once they were recorded again. (Only the
first episode of an H.264 file changes once, when the second is appended: the container's parameter
sets are then repeated among the packets.) Packets are read but not decoded.
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import xxhash

from zk0.data.dataset import DatasetFolder
from zk0.errors import DataError
from zk0.files import read_json, write_json


def clip_digest(dataset: DatasetFolder, episode: int, camera: str, memo: Path | None = None) -> str:
    """xxh3-128 over the encoded packets of one episode and camera, in hex.

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
    note = memo / f"{xxhash.xxh3_128_hexdigest(repr((seen, spans)).encode())}.json" if memo else None
    if note is not None and note.exists():
        return {int(episode): str(digest) for episode, digest in read_json(note).items()}
    digests = _read(path, spans, 0.5 / float(dataset.info["fps"]))
    if note is not None:
        write_json(note, {str(episode): digest for episode, digest in digests.items()})
    return digests


def _read(path: Path, spans: list[tuple[int, float, float]], margin_s: float) -> dict[int, str]:
    """Episode to the digest of its packets; empty where it has none. Episodes may show the same stretch."""
    stretches = sorted({(start, end) for _, start, end in spans})
    starts = np.array([start for start, _ in stretches]) - margin_s
    digests = [xxhash.xxh3_128() for _ in stretches]
    counts = [0] * len(stretches)
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            codec = stream.codec_context
            for digest in digests:
                digest.update(f"{codec.name} {codec.width} {codec.height} {codec.pix_fmt}\0".encode())
            for packet in container.demux(stream):
                if packet.pts is None or packet.size == 0:
                    continue
                time_s = packet.pts * float(stream.time_base or 0)
                index = int(np.searchsorted(starts, time_s, side="right")) - 1
                if index >= 0 and time_s < stretches[index][1] - margin_s:
                    digests[index].update(memoryview(packet))  # type: ignore[arg-type]
                    counts[index] += 1
    except (av.error.FFmpegError, IndexError) as error:
        raise DataError(f"{path}: video is unreadable: {error}") from error
    found = {
        stretch: digest.hexdigest() if count else ""
        for stretch, digest, count in zip(stretches, digests, counts, strict=True)
    }
    return {episode: found[start, end] for episode, start, end in spans}
