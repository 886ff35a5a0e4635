"""Six STS3215 servos on a serial line: a pseudo terminal that answers in Feetech's protocol.

Of the protocol there is what LeRobot's follower uses (ping, read, write, read and write of many at once); of a servo
its registers, of which positions, limits and torque mean something. What moves the motors is not here: see
simulated_arm, which runs this as a process of its own, `python servo_bus.py FOLDER`, and before all others where it
may: LeRobot waits for 50 ms.

FOLDER holds calibration.json as LeRobot writes it and joints.npy, (3, 6) in LeRobot's units: where the joints are,
where they are told to go, and whether they are switched on. The first line of output names the port, each other is a
command to all motors, as JSON: `time` in seconds, and joint to LeRobot's units of `goal` as it was sent, and of `seen`,
where the host read the joints to be, the last six times.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import sys
import time
import tty
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zk0.so100 import JOINTS

# Addresses and numbers of the maker's memory table of the STS series.
MODEL, ID, MIN_LIMIT, MAX_LIMIT, HOMING, TORQUE, GOAL, PRESENT = 3, 5, 9, 11, 31, 40, 42, 56
STS3215 = 777
TICKS = 4096  # of a turn
_PING, _READ, _WRITE, _SYNC_READ, _SYNC_WRITE = 1, 2, 3, 0x82, 0x83
_EVERYONE = 0xFE
_HOMING_SIGN, _POSITION_SIGN = 11, 15  # bits that hold a register's sign


@dataclass(frozen=True)
class Calibration:
    """A motor as LeRobot's calibration leaves it, in ticks."""

    homing_offset: int
    range_min: int
    range_max: int

    @property
    def _span(self) -> int:
        return self.range_max - self.range_min

    def units(self, joint: str, ticks: int) -> float:
        """As LeRobot tells a position: degrees from the middle; of the gripper percent, within its range."""
        if joint == "gripper":
            return (min(max(ticks, self.range_min), self.range_max) - self.range_min) * 100 / self._span
        return (ticks - (self.range_min + self.range_max) / 2) * 360 / (TICKS - 1)

    def ticks(self, joint: str, units: float) -> int:
        """The other way round."""
        if joint == "gripper":
            return round(self.range_min + units / 100 * self._span)
        return round((self.range_min + self.range_max) / 2 + units * (TICKS - 1) / 360)


class Servo:
    """One motor's registers."""

    def __init__(self, number: int, calibration: Calibration) -> None:
        self.memory = bytearray(256)
        self.memory[0:2] = bytes((3, 10))  # firmware
        self.memory[ID] = number
        self.put(MODEL, STS3215)
        self.put(MIN_LIMIT, calibration.range_min)
        self.put(MAX_LIMIT, calibration.range_max)
        self.put(HOMING, calibration.homing_offset, _HOMING_SIGN)

    def word(self, address: int) -> int:
        return int.from_bytes(self.memory[address : address + 2], "little")

    def put(self, address: int, value: int, sign: int = _POSITION_SIGN) -> None:
        self.memory[address : address + 2] = (abs(value) | (value < 0) << sign).to_bytes(2, "little")

    def write(self, address: int, data: bytes) -> None:
        """What the host wrote. A servo that is switched on holds where it is; its limits bound every goal."""
        if address == TORQUE and data[0] and not self.memory[TORQUE]:
            self.put(GOAL, self.word(PRESENT))
        self.memory[address : address + len(data)] = data
        if address <= GOAL < address + len(data):
            self.put(GOAL, min(max(self.word(GOAL), self.word(MIN_LIMIT)), self.word(MAX_LIMIT)))


class ServoBus:
    """The line with all six.

    Args:
        calibration: Joint to what its motor holds.
        joints: Shared with what moves them; see the module.
    """

    def __init__(self, calibration: dict[str, Calibration], joints: np.ndarray) -> None:
        self.calibration, self.joints = calibration, joints
        self.servos = {number: Servo(number, calibration[joint]) for number, joint in enumerate(JOINTS, 1)}
        self._seen: deque[dict[int, int]] = deque(maxlen=6)
        self._ours, theirs = pty.openpty()
        tty.setraw(theirs)
        self.port = os.ttyname(theirs)

    def serve(self) -> None:
        """Answer, as long as this process lives."""
        waiting = b""
        while True:
            waiting += os.read(self._ours, 4096)
            while (start := waiting.find(b"\xff\xff")) >= 0 and len(waiting) >= start + 4 + waiting[start + 3]:
                packet = waiting[start + 2 : start + 4 + waiting[start + 3]]
                waiting = waiting[start + 2 + len(packet) :]
                self._look()
                if _checksum(packet[:-1]) == packet[-1] and (
                    answer := self._answer(packet[0], packet[2], packet[3:-1])
                ):
                    os.write(self._ours, answer)
                self._tell()

    def _look(self) -> None:
        for servo, joint, at in zip(self.servos.values(), JOINTS, self.joints[0], strict=True):
            servo.put(PRESENT, self.calibration[joint].ticks(joint, float(at)))

    def _tell(self) -> None:
        for number, (servo, joint) in enumerate(zip(self.servos.values(), JOINTS, strict=True)):
            self.joints[1, number] = self.calibration[joint].units(joint, servo.word(GOAL))
            self.joints[2, number] = servo.memory[TORQUE]

    def _answer(self, number: int, instruction: int, data: bytes) -> bytes:
        if instruction == _SYNC_WRITE:
            self._write_all(data)
            return b""
        if instruction == _SYNC_READ:
            if data[0] == PRESENT:
                self._seen.append({one: self.servos[one].word(PRESENT) for one in data[2:] if one in self.servos})
            return b"".join(self._read(one, data[0], data[1]) for one in data[2:] if one in self.servos)
        asked = list(self.servos) if number == _EVERYONE else [number] if number in self.servos else []
        if instruction == _PING:
            return b"".join(_status(one) for one in asked)
        if instruction == _READ:
            return b"".join(self._read(one, data[0], data[1]) for one in asked)
        if instruction == _WRITE:
            for one in asked:
                self.servos[one].write(data[0], data[1:])
            return b"".join(_status(one) for one in asked if number != _EVERYONE)
        return b""

    def _read(self, number: int, address: int, length: int) -> bytes:
        return _status(number, bytes(self.servos[number].memory[address : address + length]))

    def _write_all(self, data: bytes) -> None:
        address, length = data[0], data[1]
        sent = {data[start]: data[start + 1 : start + 1 + length] for start in range(2, len(data), 1 + length)}
        if address == GOAL:
            goals = {number: int.from_bytes(value, "little") for number, value in sent.items()}
            seen = [self._units(read) for read in self._seen]
            print(json.dumps({"time": time.monotonic(), "goal": self._units(goals), "seen": seen}), flush=True)
        for number, value in sent.items():
            self.servos[number].write(address, value)

    def _units(self, ticks: dict[int, int]) -> dict[str, float]:
        named = {JOINTS[number - 1]: value for number, value in ticks.items()}
        return {joint: round(self.calibration[joint].units(joint, value), 4) for joint, value in named.items()}


def _status(number: int, data: bytes = b"") -> bytes:
    body = bytes((number, len(data) + 2, 0)) + data
    return b"\xff\xff" + body + bytes((_checksum(body),))


def _checksum(body: bytes) -> int:
    return ~sum(body) & 0xFF


if __name__ == "__main__":
    with contextlib.suppress(AttributeError, PermissionError):  # Linux, and its administrator
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    folder = Path(sys.argv[1])
    kept = json.loads((folder / "calibration.json").read_text())
    names = ("homing_offset", "range_min", "range_max")
    line = ServoBus(
        {joint: Calibration(*(kept[joint][name] for name in names)) for joint in JOINTS},
        np.load(folder / "joints.npy", mmap_mode="r+"),
    )
    print(line.port, flush=True)
    line.serve()
