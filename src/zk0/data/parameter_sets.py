"""An encoder's parameter sets, told apart from the pictures that they describe.

H.264 (ISO/IEC 14496-10) and HEVC (ISO/IEC 23008-2) say once how their pictures are coded. A container
keeps that in its header (ISO/IEC 14496-15); whoever joins two files by stream copy repeats it among the
packets. So the bytes of a packet are not the same in both, though the pictures are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

# Types of the network abstraction layer's units that hold parameter sets, by FFmpeg's names of decoders.
_SETS = {"h264": frozenset({7, 8}), "hevc": frozenset({32, 33, 34})}


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
