"""What identifies an episode: a digest of its numbers and words, and one of its encoded video packets.

LeRobot v3 keeps many episodes in one video file and appends new ones by stream copy, so a file's
digest changes whenever a dataset grows. An episode's own packets show the same bytes, apart from the
parameter sets that a stream copy repeats among them: what was found out about an episode is still
good when others were recorded, and is not once it was recorded again. Packets are read but not decoded.

H.264 (ISO/IEC 14496-10) and HEVC (ISO/IEC 23008-2) say once, in those sets, how their pictures are
coded. A container keeps them in its header (ISO/IEC 14496-15); whoever joins two files by stream copy
repeats them among the packets. So the bytes of a packet are not the same in both, though the pictures are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import xxhash

from zk0.data.dataset import DatasetFolder
from zk0.digests import new_digest
from zk0.errors import DataError
from zk0.files import read_json, write_json

CLIPS = Path(".cache/clips")  # below a project's folder: what is known of the videos that its sites train on
_FORM = "2"  # raise it when a clip's digest is made in another way

# Types of the network abstraction layer's units that hold parameter sets, by FFmpeg's names of decoders.
_SETS = {"h264": frozenset({7, 8}), "hevc": frozenset({32, 33, 34})}


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
    shown = np.rint(dataset.rows.timestamps[start:stop] * dataset.fps).astype("<i8")
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
    digests = _read(path, spans, 0.5 / dataset.fps)
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


class ParameterSets:
    """Which parameter sets are in force while a stream is read from its beginning.

    Of other codecs, and of what is not kept as these standards say, packets are left as they are.

    Args:
        codec: FFmpeg's name of the decoder.
        header: The container's header of the stream (``extradata``).
    """

    def __init__(self, codec: str, header: bytes | None) -> None:
        self._types = _SETS.get(codec, frozenset())
        self._hevc = codec == "hevc"
        self._length_bytes = 0
        self._sets: dict[int, bytes] = {}
        if header and self._types and header[0] == 1:
            try:
                self._length_bytes, units = _hevc_header(header) if self._hevc else _h264_header(header)
            except (IndexError, struct.error):
                return
            self._keep(units)

    @property
    def in_force(self) -> bytes:
        """All of them, in order of their types."""
        return b"".join(self._sets[kind] for kind in sorted(self._sets))

    def pictures(self, packet: bytes) -> bytes:
        """The packet without parameter sets; those are in force from here on."""
        if not self._length_bytes:
            return packet
        units = list(self._units(packet))
        sets = [unit for unit in units if self._type(unit) in self._types]
        if not sets:
            return packet
        self._keep(sets)
        kept = [unit for unit in units if self._type(unit) not in self._types]
        return b"".join(len(unit).to_bytes(self._length_bytes, "big") + unit for unit in kept)

    def _units(self, packet: bytes) -> Iterator[bytes]:
        place = 0
        while place + self._length_bytes < len(packet):
            start = place + self._length_bytes
            place = start + int.from_bytes(packet[place:start], "big")
            yield packet[start:place]

    def _type(self, unit: bytes) -> int:
        if not unit:
            return -1
        return unit[0] >> 1 & 0x3F if self._hevc else unit[0] & 0x1F

    def _keep(self, units: list[bytes]) -> None:
        found: dict[int, bytes] = {}
        for unit in units:
            kind = self._type(unit)
            found[kind] = found.get(kind, b"") + len(unit).to_bytes(4, "big") + unit
        self._sets |= found


def _h264_header(header: bytes) -> tuple[int, list[bytes]]:
    """Bytes of a unit's length, and the parameter sets: AVCDecoderConfigurationRecord."""
    units, place = [], 5
    for mask in (0x1F, 0xFF):
        count, place = header[place] & mask, place + 1
        for _ in range(count):
            unit, place = _sized(header, place)
            units.append(unit)
    return (header[4] & 3) + 1, units


def _hevc_header(header: bytes) -> tuple[int, list[bytes]]:
    """Bytes of a unit's length, and the parameter sets: HEVCDecoderConfigurationRecord."""
    units, place = [], 23
    for _ in range(header[22]):
        (count,) = struct.unpack_from(">H", header, place + 1)
        place += 3
        for _ in range(count):
            unit, place = _sized(header, place)
            units.append(unit)
    return (header[21] & 3) + 1, units


def _sized(header: bytes, place: int) -> tuple[bytes, int]:
    (size,) = struct.unpack_from(">H", header, place)
    return header[place + 2 : place + 2 + size], place + 2 + size
